"""Imports go one way, in the order of this list; only config and cli know Hydra."""

import ast
from pathlib import Path

import asr

ORDER = """
errors interrupts types files system compiled progress audio silence labels manifest
manifest_index corpora features augment losses data feature_cache models averaging lm decode
score formats checkpoint foreign decoding evaluate export tuning forced_alignment recipe rundir
stream distributed training_setup training_state schedule judging epoch_picture training overfit
long_audio sources quantized recognizer ray_engine report memory memory_pictures serve config
compare cli __main__
""".split()
ROOT = Path(asr.__file__).parent


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module
            if node.module == "asr":
                yield from (f"asr.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_imports_go_one_way():
    wrong = []
    for path in sorted(ROOT.rglob("*.py")):
        relative = path.relative_to(ROOT)
        layer = relative.parts[0].removesuffix(".py")
        if layer == "__init__":
            continue
        assert layer in ORDER, f"{relative}: a layer that the order does not know"
        for name in imports_of(path):
            top, _, rest = name.partition(".")
            if top in ("hydra", "omegaconf") and layer not in ("config", "cli"):
                wrong.append(f"{relative} imports {name}")
            if top == "asr" and rest:
                imported = rest.split(".")[0]
                if imported in ORDER and ORDER.index(imported) > ORDER.index(layer):
                    wrong.append(f"{relative} imports {name}")
    assert not wrong
