"""The page itself: modules as they are for a server, all in one script for a folder that opens without one."""

from __future__ import annotations

import re

from tai_engine.review.page_data import PAGE, STATIC

ENTRY = "app.js"
_IMPORT = re.compile(r'^import \{([^}]*)\} from "\./([a-z-]+\.js)";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export ((?:async )?(?:function|const|class) )(\w+)", re.MULTILINE)


def page_html(mode: str) -> str:
    """The HTML of the page: ``"live"``, or ``"report"`` for a folder, which browsers load no modules from."""
    text = (STATIC / PAGE).read_text(encoding="utf-8")
    if mode == "live":
        # All modules are asked for at once, not each when another one names it.
        links = "".join(
            f'<link rel="modulepreload" href="assets/{file.name}">\n' for file in sorted(STATIC.glob("*.js"))
        )
        return text.replace("</head>", f"{links}</head>", 1)
    # Neither does a folder have headers, so the policy goes into the page; `file:` is what 'self' is for a server.
    policy = (
        "default-src 'none'; script-src 'self' file:; style-src 'self' file:; img-src 'self' file:; base-uri 'none'"
    )
    head = f'<head>\n<meta http-equiv="Content-Security-Policy" content="{policy}">'
    module = f'<script type="module" src="assets/{ENTRY}"></script>'
    if module not in text:
        raise ValueError(f"{PAGE} does not load {ENTRY} as expected")
    return text.replace("<head>", head, 1).replace(module, f'<script defer src="assets/{ENTRY}"></script>')


def one_script() -> str:
    """All modules of the page as one plain script: a function for each, after those that it imports.

    The modules keep to what this understands: named imports and exports that begin a line, and no circles.

    Raises:
        ValueError: for an import or export in another form, or a circle.
    """
    done: dict[str, str] = {}
    under_way: list[str] = []

    def add(name: str) -> None:
        if name in under_way:
            raise ValueError(f"the modules {' -> '.join([*under_way, name])} import each other")
        if name in done:
            return
        under_way.append(name)
        text = (STATIC / name).read_text(encoding="utf-8")
        for _, imported in _IMPORT.findall(text):
            add(imported)
        names = [declared for _, declared in _EXPORT.findall(text)]
        plain = _EXPORT.sub(r"\1\2", _IMPORT.sub(r'const {\1} = modules["\2"];\n', text))
        if left := re.search(r"^\s*(import|export)\b.*$", plain, re.MULTILINE):
            raise ValueError(f"{name} has {left[0].strip()!r}, which cannot be put into one script")
        done[name] = f'modules["{name}"] = (() => {{\n{plain}return {{ {", ".join(names)} }};\n}})();\n'
        under_way.pop()

    add(ENTRY)
    return '"use strict";\n{\nconst modules = {};\n' + "\n".join(done.values()) + "}\n"
