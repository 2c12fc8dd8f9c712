import re

import pytest

from tai_engine.review import page
from tai_engine.review.page import one_script, page_html
from tai_engine.review.page_data import STATIC


def test_the_page_of_a_report_loads_a_plain_script_under_a_policy():
    live, report = page_html("live"), page_html("report")
    assert '<script type="module" src="assets/app.js"></script>' in live
    assert '<script defer src="assets/app.js"></script>' in report
    assert "module" not in report
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', report)[1]
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert live.count("<script") == report.count("<script") == 1
    assert "style=" not in live
    assert " on" not in re.sub(r">[^<]*<", "><", live)  # no handlers in the markup


def test_nothing_is_fetched_from_elsewhere():
    for file in STATIC.iterdir():
        text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?:|//[a-z]+\.|@import|url\(", text), file.name


def test_one_script_has_every_module_after_what_it_imports():
    script = one_script()
    order = re.findall(r'^modules\["([a-z]+\.js)"\] = ', script, re.MULTILINE)
    assert sorted(order) == sorted(file.name for file in STATIC.glob("*.js"))
    for place, name in enumerate(order):
        text = (STATIC / name).read_text(encoding="utf-8")
        assert set(re.findall(r'from "\./([a-z]+\.js)"', text)) <= set(order[:place])
    assert not re.search(r"^\s*(import|export)\b", script, re.MULTILINE)


def modules(folder, **texts):
    for name, text in texts.items():
        (folder / f"{name}.js").write_text(text)


def test_how_modules_become_one_script(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "STATIC", tmp_path)
    modules(
        tmp_path,
        app='import { one, two } from "./b.js";\nimport {\n  three,\n} from "./c.js";\none(two, three);\n',
        b='import { three } from "./c.js";\nexport const two = 2;\nexport async function one() {}\n'
        "const own = three;\n",
        c="export class three {}\n",
    )
    assert one_script() == (
        '"use strict";\n{\nconst modules = {};\n'
        'modules["c.js"] = (() => {\nclass three {}\nreturn { three };\n})();\n\n'
        'modules["b.js"] = (() => {\nconst { three } = modules["c.js"];\nconst two = 2;\nasync function one() {}\n'
        "const own = three;\nreturn { two, one };\n})();\n\n"
        'modules["app.js"] = (() => {\nconst { one, two } = modules["b.js"];\nconst {\n  three,\n} = modules["c.js"];\n'
        "one(two, three);\nreturn {  };\n})();\n}\n"
    )


@pytest.mark.parametrize(
    "text",
    [
        'import * as b from "./b.js";\n',
        'import b from "./b.js";\n',
        "export default 1;\n",
        "export { x };\n",
        "export let x;\n",
    ],
)
def test_modules_in_another_form_are_refused(tmp_path, monkeypatch, text):
    monkeypatch.setattr(page, "STATIC", tmp_path)
    modules(tmp_path, app=text)
    with pytest.raises(ValueError, match="cannot be put into one script"):
        one_script()


def test_modules_in_a_circle_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "STATIC", tmp_path)
    modules(tmp_path, app='import { b } from "./b.js";\n', b='import { c } from "./app.js";\nexport const b = 1;\n')
    with pytest.raises(ValueError, match=r"app\.js -> b\.js -> app\.js"):
        one_script()
