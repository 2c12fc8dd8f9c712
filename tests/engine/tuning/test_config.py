import math

import pytest

from tai_engine.errors import UserError
from tai_engine.tuning import NegativeConfig, TuningConfig
from tai_engine.tuning.config import differences


def test_the_defaults_are_the_published_recipe():
    config = TuningConfig()
    assert (config.n_contexts, config.class_specific, config.position) == (16, False, "end")
    assert (config.loss, config.scale, config.text_temperature, config.temperature_for_images) == (
        "ranking", 4.0, 50.0, 40.0,
    )  # fmt: skip
    assert (config.epochs, config.batch_size, config.momentum, config.weight_decay) == (20, 512, 0.9, 5e-4)
    assert config.negatives.strategy == "none"


def test_learning_rates_by_hand():
    config = TuningConfig()
    assert config.learning_rate_of(0) == 1e-5
    assert config.learning_rate_of(1) == 1e-4
    assert config.learning_rate_of(11) == pytest.approx(0.5e-4)
    assert config.learning_rate_of(19) == pytest.approx(0.5e-4 * (1 + math.cos(0.9 * math.pi)))
    constant = TuningConfig(schedule="constant", warmup_epochs=2)
    assert [constant.learning_rate_of(e) for e in range(4)] == [1e-5, 1e-5, 1e-4, 1e-4]


def test_a_temperature_for_images_of_ones_own():
    assert TuningConfig(text_temperature=10).temperature_for_images == 8
    assert TuningConfig(image_temperature=4).temperature_for_images == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": "rank"}, "Unknown loss 'rank'; did you mean 'ranking'"),
        ({"schedule": "linear"}, "Unknown schedule 'linear'"),
        ({"keep": "first"}, "Unknown choice of what to keep 'first'"),
        ({"epochs": 0}, "epochs of tuning is 0; it has to be a whole number from 1"),
        ({"batch_size": 0}, "batch_size"),
        ({"learning_rate": 0.0}, "learning_rate of tuning is 0.0; it has to be a number above 0"),
        ({"learning_rate": math.nan}, "learning_rate"),
        ({"text_temperature": math.inf}, "text_temperature"),
        ({"image_temperature": 0.0}, "image_temperature"),
        ({"momentum": 1.0}, "momentum"),
        ({"held_out": 0.6}, "held_out"),
        ({"patience": 0}, "patience"),
        ({"seed": -1}, "seed"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"start_share": 1.0}, "start_share of tuning is 1.0; it has to be a share from 0 and below 1"),
        ({"normalise": "standart"}, "Unknown normalisation 'standart'; did you mean 'standard'"),
        ({"held_out": 0.0, "keep": "best"}, "go by held-out sentences, but held_out is 0"),
        ({"held_out": 0.0, "patience": 2}, "go by held-out sentences, but held_out is 0"),
    ],
)
def test_what_makes_no_sense_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        TuningConfig(**changes)


def test_differences_of_recipes_are_named():
    first, second = TuningConfig(), TuningConfig(epochs=3, negatives=NegativeConfig(strategy="hard"))
    assert differences(first.as_recipe(), second.as_recipe()) == [
        "epochs 20 then, 3 now",
        "negatives.strategy 'none' then, 'hard' now",
    ]
    assert differences({"a": 1}, {"b": 1}) == ["a 1 then, 'not set' now", "b 'not set' then, 1 now"]
    assert differences(first.as_recipe(), TuningConfig().as_recipe()) == []
