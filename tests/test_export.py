"""From a folder of shards back to safetensors, or to a coarser folder: values, index, memory, failures."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
from helpers import little_memory, painted, refused, with_bytes
from model_helpers import MODEL, TRIT, read_safetensors, tree, untouched

from tritcodec import (
    TritError,
    TritTensor,
    load_file,
    open_file,
    open_model,
    save_file,
    verify_file,
    verify_model,
)
from tritcodec.model import export
from tritcodec.model.export import dequantize_model, truncate_model
from tritcodec.model.index import INDEX_NAME, encode_index
from tritcodec.model.shards import read_shard
from tritcodec.reader import Tensor

INDEX = f"{MODEL}.index.json"
NAMES = [f"model-{n:05}-of-00003.trit" for n in (1, 2, 3)]
COMPANIONS = {"config.json": b'{"hidden_size": 20}', "tokenizer/vocab.txt": b"a\n"}
PARTS: list[dict[str, Tensor]] = [  # every kind of tensor, rows that are no multiple of 5, rank 1 and 3
    {"a.weight": painted((11, 40), 3, dtype="BF16"), "a.bias": np.arange(40, dtype="<f2"), "i": np.arange(3)},
    {"b.weight": painted((2, 4, 21), 4, dtype="F16"), "b.none": np.zeros((0, 3), np.float32)},
    {"c.weight": painted((20,), 1), "c.scalar": np.array(7, np.uint8), "c.mask": np.array([True, False])},
]
METADATA = {"format": "pt", "tritcodec.config": "mine"}


def sharded(folder: Path, parts: list[dict[str, Tensor]] = PARTS) -> Path:
    """A folder with a shard for each of *parts*, their index, and other files."""
    for name, data in COMPANIONS.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    names = NAMES[: len(parts)]
    for n, (name, part) in enumerate(zip(names, parts, strict=True)):
        save_file(part, folder / name, {**METADATA, "part": str(n)})
    (folder / INDEX_NAME).write_bytes(encode_index({name: read_shard(folder / name) for name in names}))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of three shards."""
    return sharded(tmp_path / "folder")


def in_safetensors(shard: str) -> str:
    """The safetensors file that a shard becomes."""
    return shard.replace(".trit", ".safetensors")


# Back to safetensors


@pytest.mark.parametrize("band", [1, 100, 1 << 22])
@pytest.mark.parametrize(("dtype", "depth"), [(None, None), ("F32", 1), ("BF16", 3)])
def test_each_shard_becomes_a_file(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    band: int,
    dtype: str | None,
    depth: int | None,
) -> None:
    """Every tensor has the bits of `dequantize`, in the file of its shard, however wide the bands are."""
    monkeypatch.setattr(export, "BAND_WEIGHTS", band)
    dequantize_model(folder, tmp_path / "out", dtype=dtype, depth=depth)
    assert {name for name in tree(tmp_path / "out") if "safetensors" in name} == {
        INDEX,
        *map(in_safetensors, NAMES),
    }
    for n, name in enumerate(NAMES):
        tensors, metadata = read_safetensors(tmp_path / "out" / in_safetensors(name))
        assert metadata == {"format": "pt", "part": str(n)}
        assert tensors.keys() == PARTS[n].keys()
        for key, tensor in PARTS[n].items():
            values = tensor
            if isinstance(tensor, TritTensor):
                values = tensor.truncate(min(depth or 4, tensor.depth)).dequantize(dtype)
            assert isinstance(values, np.ndarray)
            assert (tensors[key].shape, tensors[key].data) == (values.shape, values.tobytes()), key


@pytest.mark.parametrize("dtype", [None, "F16"])
def test_the_index_is_that_of_the_convention(folder: Path, tmp_path: Path, dtype: str | None) -> None:
    """Each tensor is mapped to the file that the stock library finds it in; total_size fits."""
    dequantize_model(folder, tmp_path / "out", dtype=dtype)
    text = (tmp_path / "out" / INDEX).read_text("ascii")
    index = json.loads(text)
    assert text == json.dumps(index, indent=2, sort_keys=True) + "\n"
    assert index.keys() == {"metadata", "weight_map"}
    sizes, found = 0, dict[str, str]()
    for name in map(in_safetensors, NAMES):
        with safetensors.safe_open(tmp_path / "out" / name, "numpy") as file:
            found |= dict.fromkeys(file.keys(), name)
        sizes += sum(len(tensor.data) for tensor in read_safetensors(tmp_path / "out" / name)[0].values())
    assert index == {"metadata": {"total_size": sizes}, "weight_map": found}


def test_companions_come_along_and_indexes_do_not(folder: Path, tmp_path: Path) -> None:
    """The other files of the folder are copied; named by its index, a folder is the same."""
    dequantize_model(folder, tmp_path / "out")
    truncate_model(folder, tmp_path / "cut", 1)
    dequantize_model(folder / INDEX_NAME, tmp_path / "out2")
    truncate_model(folder / INDEX_NAME, tmp_path / "cut2", 1)
    for made in ("out", "cut"):
        files = tree(tmp_path / made)
        assert {name: files[name] for name in COMPANIONS} == COMPANIONS
        assert tree(tmp_path / f"{made}2") == files
    assert INDEX_NAME not in tree(tmp_path / "out")


def test_the_configuration_has_the_dtype_that_was_asked_for(folder: Path, tmp_path: Path) -> None:
    """Stock loaders cast weights to what it says, in each of its parts; otherwise it is copied as it is."""
    before = (
        '{"dtype":"bfloat16", "text_config": {"torch_dtype": "float16", "n": 1}, "cache": {"dtype": "auto"}}'
    )
    (folder / "config.json").write_text(before)
    dequantize_model(folder, tmp_path / "same")
    assert (tmp_path / "same" / "config.json").read_text() == before
    dequantize_model(folder, tmp_path / "out", dtype="F32")
    after = json.loads((tmp_path / "out" / "config.json").read_text())
    parts = {"text_config": {"torch_dtype": "float32", "n": 1}, "cache": {"dtype": "auto"}}
    assert after == {"dtype": "float32", **parts}
    for other in ('{"hidden_size":20}', "no JSON", "[" * 100_000, '{"a":' * 900 + "1" + "}" * 900):
        (folder / "config.json").write_text(other)
        shutil.rmtree(tmp_path / "out")
        dequantize_model(folder, tmp_path / "out", dtype="F32")
        assert (tmp_path / "out" / "config.json").read_text() == other


def test_a_dtype_that_is_none_is_refused(folder: Path, tmp_path: Path) -> None:
    """Whether there is a configuration or not, and before anything is written."""
    (folder / "config.json").write_text('{"dtype": "float64"}')
    for wrong in ("float32", "F64", ""):
        with untouched(tmp_path), refused("TEN-5"):
            dequantize_model(folder, tmp_path / "out", dtype=wrong)
    dequantize_model(folder, tmp_path / "out", dtype="F16")
    assert (tmp_path / "out" / "config.json").read_text() == '{\n  "dtype": "float16"\n}\n'


def test_a_file_of_another_kind_is_not_replaced(folder: Path, tmp_path: Path) -> None:
    """Cut to a name that a .trit file has, it is replaced; what is none stays."""
    (tmp_path / "notes").write_text("mine")
    with untouched(tmp_path), pytest.raises(TritError, match=r"no \.trit file"):
        truncate_model(folder / NAMES[0], tmp_path / "notes", 1)
    shutil.copyfile(folder / NAMES[0], tmp_path / "cut")
    truncate_model(folder / NAMES[0], tmp_path / "cut", 1)
    assert verify_file(tmp_path / "cut").ok
    assert (tmp_path / "cut").read_bytes() != (folder / NAMES[0]).read_bytes()


def test_one_shard_with_an_index_keeps_it(tmp_path: Path) -> None:
    """What has an index gets one; what is model.trit alone becomes model.safetensors alone."""
    source = sharded(tmp_path / "one", PARTS[:1])
    dequantize_model(source, tmp_path / "out")
    assert {INDEX, in_safetensors(NAMES[0])} < tree(tmp_path / "out").keys()
    (source / INDEX_NAME).unlink()
    (source / NAMES[0]).rename(source / TRIT)
    dequantize_model(source, tmp_path / "alone")
    truncate_model(source, tmp_path / "cut", 1)
    assert {name for name in tree(tmp_path / "alone") if "safetensors" in name} == {MODEL}
    assert {name for name in tree(tmp_path / "cut") if "trit" in name} == {TRIT}


def test_a_shard_by_itself_is_a_file(folder: Path, tmp_path: Path) -> None:
    """Named alone, a shard becomes model.safetensors, without companions and without an index."""
    dequantize_model(folder / NAMES[1], tmp_path / "out")
    truncate_model(folder / NAMES[1], tmp_path / "cut.trit", 4)
    assert tree(tmp_path / "out").keys() == {MODEL}
    assert (tmp_path / "cut.trit").read_bytes() == (folder / NAMES[1]).read_bytes()


def test_memory_is_for_a_band(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a large trit tensor nor a large raw one is in memory at once, nor what is made of it."""
    weights: dict[str, Tensor] = {"w": painted((5000, 400), 4), "raw": np.zeros(1 << 21, np.float32)}
    source = sharded(tmp_path / "large", [weights])
    monkeypatch.setattr(export, "BAND_WEIGHTS", 1 << 16)
    with little_memory(3 << 20):  # of 14 MB packed and raw, and 16 MB of what is written
        dequantize_model(source, tmp_path / "out", dtype="F32")


def test_progress_counts_every_tensor_once(folder: Path, tmp_path: Path) -> None:
    """A call for each tensor of each shard, with its elements."""
    told: list[tuple[str, int]] = []
    dequantize_model(folder, tmp_path / "out", progress=lambda name, weights: told.append((name, weights)))
    with open_model(folder) as model:
        expected = [(entry.name, int(np.prod(entry.shape, dtype=int))) for entry in model.entries()]
    assert sorted(told) == sorted(expected)


# Coarser


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_truncating_a_folder(folder: Path, tmp_path: Path, depth: int) -> None:
    """The same shards, each cut as a file is, with an index that fits."""
    truncate_model(folder, tmp_path / "cut", depth)
    assert verify_model(tmp_path / "cut").ok
    with open_model(folder) as model, open_model(tmp_path / "cut") as cut:
        assert (cut.shards, cut.keys(), cut.metadata) == (model.shards, model.keys(), model.metadata)
    for name in NAMES:
        truncate_model(folder / name, tmp_path / name, depth)
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / name).read_bytes()
    if depth == 4:
        assert tree(tmp_path / "cut") == tree(folder)


@pytest.mark.parametrize("depth", [0, 5, True])
@pytest.mark.parametrize("back", [dequantize_model, truncate_model])
def test_a_depth_that_is_none(folder: Path, tmp_path: Path, back: Callable[..., None], depth: int) -> None:
    """TEN-2, and nothing is left."""
    with untouched(tmp_path), refused("TEN-2"):
        back(folder, tmp_path / "new" / "out", depth=depth)


# Failures


def spoilt(folder: Path, name: str, part: int, byte: int) -> str:
    """Change the last byte of a segment, to another trit or none; gives the path of its shard."""
    for path in (folder / shard for shard in NAMES):
        with open_file(path) as file:
            found = [s for s in file.segments if (s.entry.name, s.part) == (name, part)]
        if found:
            data = path.read_bytes()
            at = found[0].end - 1
            path.write_bytes(with_bytes(data, at, data[at] ^ 1 if byte < 0 else byte))
            return str(path)
    raise AssertionError(name)


@pytest.mark.parametrize(
    ("name", "part", "byte", "clause"),
    [
        ("b.weight", 6, -1, "SEG-1"),
        ("b.weight", 0, -1, "SEG-1"),
        ("b.weight", 6, 243, "PACK-2"),
        ("a.weight", 5, 242, "PACK-3"),
        ("a.bias", 0, -1, "SEG-1"),
        ("c.mask", 0, 2, "RAW-2"),
    ],
)
@pytest.mark.parametrize("back", [dequantize_model, partial(truncate_model, depth=4)])
@pytest.mark.parametrize("band", [1, 1 << 22])
def test_damage_leaves_nothing(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    back: Callable[..., None],
    name: str,
    part: int,
    byte: int,
    clause: str,
    band: int,
) -> None:
    """Every byte that is read is checked, digests too, although no plane is whole in memory."""
    monkeypatch.setattr(export, "BAND_WEIGHTS", band)
    place = spoilt(folder, name, part, byte)
    if clause.startswith("PACK") and back is dequantize_model and band > 1:
        clause = "SEG-1"  # of what is read at once the digest is compared first
    with untouched(tmp_path), refused(clause, place) as caught:
        back(folder, tmp_path / "new" / "out")
    assert repr(name) in caught.value.where


def test_damage_below_the_depth_is_not_read(folder: Path, tmp_path: Path) -> None:
    """A plane that the depth leaves out may be broken: it is not looked at."""
    spoilt(folder, "b.weight", 6, 255)
    dequantize_model(folder, tmp_path / "out", depth=3)
    with refused("SEG-1"):
        dequantize_model(folder, tmp_path / "out2", depth=4)


@pytest.mark.parametrize("back", [dequantize_model, partial(truncate_model, depth=1)])
def test_shards_of_two_models_leave_nothing(folder: Path, tmp_path: Path, back: Callable[..., None]) -> None:
    """IDX-15 comes before anything of the shard is given out; an index that is broken, before all."""
    other = dict(load_file(folder / NAMES[1]))
    save_file({**other, "b.none": np.zeros((0, 3), np.float64)}, folder / NAMES[1], {**METADATA, "part": "1"})
    size = sum((folder / name).stat().st_size for name in NAMES)
    index = json.loads((folder / INDEX_NAME).read_text())
    index["metadata"]["total_size"] = size
    (folder / INDEX_NAME).write_text(json.dumps(index))
    with untouched(tmp_path), refused("IDX-15", NAMES[1]):
        back(folder, tmp_path / "new" / "out")
    (folder / INDEX_NAME).write_text("{}")
    with untouched(tmp_path), refused("IDX-6", INDEX_NAME):
        back(folder, tmp_path / "new" / "out")


@pytest.mark.parametrize("back", [dequantize_model, partial(truncate_model, depth=1)])
@pytest.mark.parametrize(
    ("function", "at"), [("fsync", 1), ("fsync", 3), ("fsync", 7), ("copyfile", 2), ("rename", 1)]
)
def test_a_full_disk_leaves_nothing(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    back: Callable[..., None],
    function: str,
    at: int,
) -> None:
    """Whichever file fails, of the shards, the index or the others: no folder, and an error that names it."""
    count = 0
    module = shutil if function == "copyfile" else os
    real = getattr(module, function)

    def fail(*arguments: Any) -> Any:
        nonlocal count
        count += 1
        if count == at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*arguments)

    monkeypatch.setattr(module, function, fail)
    with untouched(tmp_path), pytest.raises(OSError, match="No space left") as caught:
        back(folder, tmp_path / "new" / "out")
    assert str(tmp_path / "new") in str(caught.value.filename)
    assert "partial" not in str(caught.value.filename)


def test_a_name_that_safetensors_reserves(tmp_path: Path) -> None:
    """A tensor called __metadata__ cannot be written, in whichever shard it is."""
    source = sharded(tmp_path / "odd", [PARTS[0], {"__metadata__": np.zeros(1, np.float32)}])
    with untouched(tmp_path), pytest.raises(TritError, match="safetensors has no tensor of that name"):
        dequantize_model(source, tmp_path / "out")


@pytest.mark.skipif(os.name != "posix", reason="links need rights elsewhere")
def test_a_snapshot_of_a_hub_goes_back(folder: Path, tmp_path: Path) -> None:
    """Of links to ../../blobs, files are made."""
    snapshot, blobs = tmp_path / "repo" / "snapshots" / "0", tmp_path / "repo" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for name in (INDEX_NAME, *NAMES, "config.json"):
        shutil.copyfile(folder / name, blobs / f"{name}.blob")
        (snapshot / name).symlink_to(f"../../blobs/{name}.blob")
    truncate_model(snapshot, tmp_path / "cut", 4)
    expected = {name: data for name, data in tree(folder).items() if not name.startswith("tokenizer")}
    assert tree(tmp_path / "cut") == expected
    assert not any(path.is_symlink() for path in (tmp_path / "cut").iterdir())


def test_a_folder_that_cannot_be_listed_is_not_left_out(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tokenizer in a folder that fails to be read: an error, and no model without it."""
    scandir = os.scandir

    def failing(path: Any) -> Any:
        if str(path).endswith("tokenizer"):
            raise OSError(errno.EIO, "no", str(path))
        return scandir(path)

    with untouched(tmp_path), monkeypatch.context() as patch:
        patch.setattr(os, "scandir", failing)
        with pytest.raises(OSError, match="no"):
            dequantize_model(folder, tmp_path / "out")
