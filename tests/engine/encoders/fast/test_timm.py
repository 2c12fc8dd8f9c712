"""timm's convolutional towers folded: the same vectors, and nothing of the tower changed."""

import pytest
import torch
from open_clip.timm_model import TimmModel
from torch import nn

from tai_engine.encoders.dense import image_recipe
from tai_engine.encoders.fast.gate import fast_tower, rewritten
from tai_engine.encoders.fast.timm import FoldedTimm, _folding_pairs

CPU = torch.device("cpu")
ARCHITECTURES = [
    "resnet10t",
    "tf_efficientnet_lite0",
    "mobilenetv2_050",
    "test_byobnet",
    "test_resnet",
    "test_convnext",
]


def tower(architecture):
    with torch.random.fork_rng():
        torch.manual_seed(7)
        visual = TimmModel(architecture, 24, image_size=96, pool="avg", proj_bias=True).eval()
        with torch.no_grad():
            for module in visual.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.running_mean.normal_(std=0.2)
                    module.running_var.uniform_(0.5, 1.5)
                    module.weight.uniform_(0.5, 1.5)
                    module.bias.normal_(std=0.2)
    return visual


def noise(size, count=2):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(8))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("size", [96, 75])
def test_folded_towers_give_the_same_vectors(architecture, size):
    visual = tower(architecture)
    exact = image_recipe(visual, size)
    fast = FoldedTimm(visual, size, torch.float32, CPU, exact.rows_per_image > 0)
    with torch.no_grad():
        for expected, found in zip(exact.compute(noise(size)), fast(noise(size)), strict=True):
            if expected is None:
                assert found is None
            else:
                torch.testing.assert_close(found, expected, atol=1e-5 * float(expected.abs().max()), rtol=1e-4)


def test_every_norm_of_an_efficientnet_is_folded_and_its_activation_fused():
    visual = tower("tf_efficientnet_lite0")
    norms = [module for module in visual.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(_folding_pairs(visual, 96, CPU)) == len(norms) == 49
    folded = FoldedTimm(visual, 96, torch.float32, CPU)._tower
    assert not [module for module in folded.modules() if isinstance(module, nn.BatchNorm2d)]


def test_a_norm_is_folded_only_into_the_convolution_that_it_reads():
    class Crossed(nn.Module):
        """Norms in another order than convolutions, one behind an activation, one convolution that is used twice."""

        def __init__(self):
            super().__init__()
            self.first, self.second, self.twice = (nn.Conv2d(3, 3, 1) for _ in range(3))
            self.of_second, self.of_first, self.late, self.again, self.once_more = (nn.BatchNorm2d(3) for _ in range(5))

        def forward(self, x):
            x = self.of_second(self.second(self.of_first(self.first(x))))
            x = self.late(torch.relu(self.first(x)))
            return self.once_more(self.twice(self.again(self.twice(x))))

    found = [(pair.conv, pair.norm) for pair in _folding_pairs(Crossed().eval(), 4, CPU)]
    assert found == [("first", "of_first"), ("second", "of_second")]


def test_the_tower_stays_as_it_is():
    visual = tower("resnet10t")
    before = {name: tensor.clone() for name, tensor in visual.state_dict().items()}
    FoldedTimm(visual, 96, torch.bfloat16, CPU)
    after = visual.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_timm_tower_passes_the_gate(precision):
    visual = tower("resnet10t")
    found = fast_tower(image_recipe(visual, 64), visual, 64, precision, CPU)
    assert found is not None
    assert found.precision == precision


def test_without_patches_there_are_coarse_vectors_alone():
    visual = tower("resnet10t")
    fast = rewritten(image_recipe(visual, 64, "none"), visual, 64, "fp32", CPU)
    with torch.no_grad():
        vectors = fast(noise(64))
        torch.testing.assert_close(vectors.coarse, visual(noise(64)), atol=1e-5, rtol=1e-4)
    assert vectors.fine is None
