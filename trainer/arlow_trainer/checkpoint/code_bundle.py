"""The code of an export: each file by itself, so that every loader finds all of it.

Loaders copy a file and what it imports from its folder, but older ones not what that imports, and
those of the hub follow no links. So what a file imports from this package is written into it.
"""

from __future__ import annotations

import ast
from pathlib import Path

import arlow_trainer.model


def bundled(module: str) -> str:
    """Returns the source of a module of `arlow_trainer.model` with what it imports from there.

    Raises ValueError where two of the modules give different things one name.
    """
    header: list[str] = []
    bodies: list[str] = []
    names: dict[str, str] = {}
    _collect(module, header, bodies, names, set())
    imports = "\n".join(dict.fromkeys(header))
    return f"{imports}\n\n\n" + "\n\n\n".join(bodies) + "\n"


def _collect(
    module: str, header: list[str], bodies: list[str], names: dict[str, str], seen: set[str]
) -> None:
    seen.add(module)
    source = (Path(arlow_trainer.model.__path__[0]) / f"{module}.py").read_text("utf-8")
    lines = source.splitlines()
    body: list[str] = []
    position = 0
    for node in ast.parse(source).body:
        # With what stands before it: comments, and the decorators of a class.
        text = "\n".join(lines[position : node.end_lineno])
        position = node.end_lineno or position
        if isinstance(node, ast.ImportFrom) and node.level:
            imported = str(node.module)
            if imported not in seen:
                _collect(imported, header, bodies, names, seen)
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            if text.strip() == "from __future__ import annotations":
                header.insert(0, text.strip())
            else:
                header.append(text.strip())
            continue
        for name in _defined(node):
            if names.setdefault(name, module) != module:
                raise ValueError(f"{module} and {names[name]} both define {name}: rename one")
        if _is_docstring(node) and not body:
            continue  # of the module
        body.append(text)
    bodies.append("\n".join(body).strip("\n"))


def _defined(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Assign):
        return [target.id for target in node.targets if isinstance(target, ast.Name)]
    return []


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
