"""Run folders that somebody else crafted: each a small change of a real run's folder."""

from __future__ import annotations

from arlow_trainer.checkpoint.training_state import TRAINING_STATE
from support.crafting import (
    DECODER_WEIGHTS,
    DEEP,
    DIGITS,
    ESCAPES,
    SHARD,
    STEP,
    TOWER_WEIGHTS,
    Crafted,
    bomb,
    described,
    entry,
    fifo,
    lines,
    link,
    names,
    sparse,
    tensors,
    with_file,
    with_manifest,
    with_model,
    with_state,
    written,
)

STATE = TRAINING_STATE
MANIFEST = "manifest.json"
STATUS = "status.json"
_POINT = {"step": 10, "time": "2026-05-04T03:00:00+00:00", "loss": 0.5}
_EVENT = {"time": "2026-05-04T03:00:00+00:00"}
_PROBE = {"step": 10, "method": "knn", "data": "set", "accuracy": 0.5}
_STATUS = {"run": "tiny-run", "phase": "training", "step": 1, "totalSteps": 4}
_RECORD = {"size": 1, "sha256": "0" * 64}

MANIFESTS = [
    Crafted("manifest nested", written(f"checkpoint-{STEP}/{MANIFEST}", DEEP), MANIFEST),
    Crafted(
        "manifest with a long number",
        written(f"checkpoint-{STEP}/{MANIFEST}", b'{"step": ' + DIGITS + b"}"),
        MANIFEST,
    ),
    Crafted("manifest of 10 GB", sparse(f"checkpoint-{STEP}/{MANIFEST}", 10**10), MANIFEST),
    Crafted("manifest a list", written(f"checkpoint-{STEP}/{MANIFEST}", b"[]"), MANIFEST),
    *(
        Crafted(f"manifest {key} {value!r:.20}", with_manifest(**{key: value}), MANIFEST)
        for key, value in (
            ("step", "x"),
            ("step", -1),
            ("ranks", []),
            ("created", 1e99),
            ("created", "2026-01-01"),
            ("attempt", None),
            ("format_version", 2**62),
            ("files", [1]),
            ("files", {"a": {"size": 10**30, "sha256": "0" * 64}}),
            ("files", {"a": {"size": "x", "sha256": 1}}),
            ("files", {"../a": _RECORD}),
            ("files", {ESCAPES: _RECORD}),
        )
    ),
    Crafted("manifest of a file that is not there", with_manifest(files={"a": _RECORD}), "a: is"),
    Crafted("manifest of nothing", with_manifest(files={}), TRAINING_STATE),
]
STATES = [
    Crafted("state nested", with_file(STATE, DEEP), STATE),
    Crafted("state with a long number", with_file(STATE, b'{"step": ' + DIGITS + b"}"), STATE),
    Crafted("state not UTF-8", with_file(STATE, b"\xff\xfe{}"), STATE),
    Crafted("state a list", with_file(STATE, b"[]"), STATE),
    Crafted("state a FIFO", fifo(f"checkpoint-{STEP}/{STATE}"), STATE),
    Crafted("state missing", with_file(STATE, None), STATE),
    *(
        Crafted(f"state {key} {value!r:.20}", with_state(**{key: value}), STATE)
        for key, value in (
            ("ranks", 10**9),
            ("ranks", 0),
            ("ranks", "many"),
            ("step", 7),
            ("step", -1),
            ("next_sample", [1]),
            ("total_steps", {}),
            ("set_sizes", 3),
            ("set_sizes", {"image": "x"}),
            ("precision", 1),
            ("loss", "low"),
            ("loss_scaler", {"x": 1.0}),
            ("skipped_files", [1]),
            ("run", []),
            ("run", "x"),
        )
    ),
    *(
        Crafted(f"model {key} {value!r:.20}", with_model(**{key: value}), damaged)
        for key, value, damaged in (
            ("depth", 10**8, STATE),
            ("embedDim", 2 * 10**12, STATE),
            ("mlpRatio", 1e99, STATE),
            ("depth", "x", STATE),
            ("depth", [[[]]], STATE),
        )
    ),
]
FILES = [
    Crafted(f"{name.rpartition('/')[0]} {what}", with_file(name, content), name)
    for name in (TOWER_WEIGHTS, SHARD)
    for what, content in (
        ("empty", b""),
        ("with a header of 2^63 bytes", tensors({}, length=2**63)),
        ("truncated", tensors({"a": entry([2], 0, 8)}, b"1234")),
        ("not JSON", tensors(b"{nope")),
        ("nested", tensors(DEEP)),
        ("with a long number", tensors(b'{"a": ' + DIGITS + b"}")),
        ("a list", tensors([1])),
        ("beyond its end", tensors({"a": entry([2], 0, 2**62)}, b"12345678")),
        ("overlapping", tensors({x: entry([2], 0, 8) for x in "ab"}, b"12345678")),
        ("of huge shape", tensors({"a": entry([10**9] * 9, 0, 8)}, b"12345678")),
        ("of wrong types", tensors({"a": entry("x", "y", None, [])}, b"12345678")),
    )
] + [
    Crafted("decoder empty", with_file(DECODER_WEIGHTS, b""), DECODER_WEIGHTS),
    Crafted("shard missing", with_file(SHARD, None), STATE),
    *(
        Crafted(f"shard {what}", with_file(SHARD, tensors({"__metadata__": metadata})), SHARD)
        for what, metadata in (
            ("without metadata", {}),
            ("with metadata a list", []),
            ("with a nested list of fragments", {"adam_step": "1", "fragments": "[" * 50_000}),
            ("with fragments of wrong types", {"adam_step": "1", "fragments": "[[1], 2]"}),
            (
                "with fragments beyond its end",
                {
                    "adam_step": "1",
                    "fragments": '[{"name": "a", "group": 0, "start": 0, "count": 9, "offset": 0}]',
                },
            ),
        )
    ),
]
OTHERS = [
    *(
        Crafted(f"status {what}", written(STATUS, content), refused=("watch",), file=STATUS)
        for what, content in (
            ("nested", DEEP),
            ("with a long number", b'{"step": ' + DIGITS + b"}"),
            ("a list", b"[]"),
            ("not UTF-8", b"\xff\xff"),
            ("step a text", lines(_STATUS | {"step": "x"})),
            ("losses of wrong types", lines(_STATUS | {"recentLosses": [1, "x"]})),
            ("phases of wrong types", lines(_STATUS | {"stepPhaseSeconds": [1]})),
            ("time without a zone", lines(_STATUS | {"lastStepTime": "2026-01-01T00:00:00"})),
            ("not finite", lines(_STATUS | {"etaSeconds": "inf"})),
            ("phase unknown", lines(_STATUS | {"phase": "\x1b[31m"})),
        )
    ),
    Crafted(
        "status of 10 GB",
        sparse("status.json", 10**10),
        refused=("watch",),
        file="status.json",
    ),
    *(
        Crafted(f"status {what}", make(STATUS), refused=("watch",), file=STATUS)
        for what, make in (("a FIFO", fifo), ("a device", lambda name: link(name, "/dev/zero")))
    ),
    Crafted(
        "status of odd values",
        written(
            "status.json",
            lines(
                _STATUS
                | {
                    "run": ESCAPES,
                    "message": ESCAPES,
                    "step": -(2**62),
                    "totalSteps": -1,
                    "etaSeconds": 1e99,
                    "medianStepSeconds": -1e99,
                    "loss": 1e99,
                    "gradNorm": ESCAPES,
                    "learningRate": True,
                    "lastStepTime": "0001-01-01T00:00:00+23:59",
                    "stepPhaseSeconds": {ESCAPES: 1e99, "b": -1},
                    "recentLosses": [{"step": 1, "loss": 1e99}, {"step": 0, "loss": -1e99}],
                    "lastCheckpoint": {
                        "uri": ESCAPES,
                        "step": -1,
                        "time": "9999-12-31T23:59:59-23:59",
                    },
                }
            ),
        ),
    ),
    Crafted(
        "events of odd values",
        written(
            "events.jsonl",
            lines(
                DEEP,
                b'{"step": ' + DIGITS + b"}",
                [],
                1,
                b"\xff",
                _EVENT | {"kind": ["x"]},
                _EVENT | {"kind": "start", "ranks": "x"},
                _EVENT | {"kind": "resume", "step": None, "uri": {}},
                _EVENT | {"kind": "phase", "phase": ESCAPES, "message": [ESCAPES]},
                _EVENT | {"kind": "checkpoint", "step": [1]},
                _EVENT | {"kind": "probe", "step": 1, "method": 3, "accuracy": 1e99},
                _EVENT | {"kind": ESCAPES, ESCAPES: ESCAPES},
                {"time": 3, "kind": "x"},
                {"time": "0001-01-01T00:00:00+23:59", "kind": "x"},
            ),
        ),
    ),
    Crafted(
        "history of odd values",
        written(
            "history.jsonl",
            lines(
                DEEP,
                b'{"step": ' + DIGITS + b"}",
                [],
                b"\xff",
                _POINT | {"step": "x"},
                _POINT | {"step": [1]},
                _POINT | {"step": 1.5},
                _POINT | {"step": True},
                _POINT | {"time": 3},
                _POINT | {"step": 11, "phase_seconds": [1]},
                _POINT | {"step": 12, "phase_seconds": {ESCAPES: 1e99, "b": "x", "c": -1}},
                _POINT | {"step": 13, "loss": "x", "learning_rate": [1], "grad_norm": {}},
                _POINT | {"step": 14, "loss": 1e99, "learning_rate": -1e99, "grad_norm": 1e-99},
                _POINT | {"step": 2**62, "loss": 1e-300, "images_per_second": 1e99},
            ),
        ),
    ),
    Crafted(
        "probes of odd values",
        written(
            "probe.jsonl",
            lines(
                DEEP,
                b'{"step": ' + DIGITS + b"}",
                [],
                _PROBE | {"data": ESCAPES, "method": ESCAPES, "neighbors": 2**62},
                _PROBE | {"data": "$\\nope$", "method": "$\\nope$", "spread": 0.1},
                _PROBE | {"step": 2**62, "spread": [1]},
                _PROBE | {"accuracy": 1e99},
                _PROBE | {"accuracy": "nan", "baseline": "inf"},
                _PROBE | {"neighbors": {}},
            ),
        ),
    ),
    Crafted(
        "lines of 10 GB",
        sparse("history.jsonl", 10**10),
        refused=("curves",),
        file="history.jsonl",
    ),
    Crafted("lease nested", written("lease.json", DEEP)),
    Crafted("names", names),
    Crafted("picture described", described),
    *(
        Crafted(f"picture {what}", make, refused=("report",), file="step-20-image.png")
        for what, make in (
            ("of 384 megapixels", bomb),
            ("empty", written(f"pictures/step-{STEP}-image.png", b"")),
            ("truncated", written(f"pictures/step-{STEP}-image.png", b"\x89PNG\r\n\x1a\n\0\0")),
            (
                "that is PostScript",
                written(f"pictures/step-{STEP}-image.png", b"%!PS-Adobe-3.0 EPSF-3.0\n"),
            ),
        )
    ),
    Crafted(
        "card",
        with_file("README.md", b"---\n\xff" + ESCAPES.encode("utf-8", "replace") + b">" * 100_000),
    ),
]
CRAFTED = [*MANIFESTS, *STATES, *FILES, *OTHERS]
