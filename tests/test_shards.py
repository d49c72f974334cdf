"""Model folders, opened: what is read when, links, threads, few open files, and what changes meanwhile."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import folder_cases
import numpy as np
import pytest
from folder_cases import FIRST, SECOND, SHARDS, sound
from golden import replaced
from helpers import painted, record_reads, refused, same, with_bytes

from tritcodec import TritError, TritTensor, load_file, open_file, open_model, save_file, verify_model
from tritcodec.model import shards
from tritcodec.model.index import INDEX_NAME, MAX_INDEX_SIZE, TRIT_NAME, encode_index
from tritcodec.model.shards import model_file, read_shard
from tritcodec.reader import Source

linking = pytest.mark.skipif(os.name != "posix", reason="links need rights elsewhere")


def write(folder: Path, files: dict[str, bytes]) -> Path:
    """*files* in a new *folder*, which is given."""
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound folder of three shards."""
    return write(tmp_path / "folder", sound(SHARDS))


def many(folder: Path, count: int) -> Path:
    """A folder of *count* shards with a tensor each, as the package writes it."""
    folder.mkdir()
    names = [f"model-{n:05}-of-{count:05}.trit" for n in range(1, count + 1)]
    for n, name in enumerate(names):
        save_file({f"layer.{n}.weight": painted((3, 20 + n))}, folder / name, {"format": "pt", "n": str(n)})
    made = {name: read_shard(folder / name) for name in names}
    (folder / INDEX_NAME).write_bytes(encode_index(made))
    return folder


# What is there


def test_the_path_is_a_folder_its_index_or_a_file(folder: Path, tmp_path: Path) -> None:
    """Of a folder the index counts, and model.trit where there is none; a file is itself, a shard, too."""
    assert model_file(folder) == model_file(folder / INDEX_NAME) == folder / INDEX_NAME
    (tmp_path / TRIT_NAME).write_bytes(SHARDS[FIRST])
    assert model_file(tmp_path) == tmp_path / TRIT_NAME
    assert model_file(folder / FIRST) == folder / FIRST
    with open_model(folder) as whole, open_model(folder / INDEX_NAME) as again:
        assert (whole.keys(), whole.identity, whole.index) == (again.keys(), again.identity, again.index)
    with open_model(folder / FIRST) as part, open_file(folder / FIRST) as file:
        assert (part.index, part.shards) == (None, [FIRST])
        assert (part.keys(), part.identity, part.metadata) == (file.keys(), file.identity, file.metadata)


def test_an_index_that_is_a_broken_link_counts(folder: Path) -> None:
    """A lost index does not make model.trit the model."""
    (folder / TRIT_NAME).write_bytes(SHARDS[FIRST])
    assert verify_model(folder).verdict == "invalid"
    (folder / INDEX_NAME).unlink()
    assert verify_model(folder).ok
    (folder / INDEX_NAME).symlink_to("nowhere")
    with pytest.raises(FileNotFoundError):
        open_model(folder)


@pytest.mark.parametrize("use", [open_model, verify_model])
def test_a_folder_without_a_model(use: Callable[[Path], object], tmp_path: Path) -> None:
    """Neither index nor model.trit: there is nothing to judge; the error says where there is something."""
    neither = f"neither {TRIT_NAME} nor {INDEX_NAME} in the folder: "
    with pytest.raises(FileNotFoundError, match=neither) as caught:
        use(tmp_path)
    assert caught.value.filename == str(tmp_path)
    for name, advice in (
        ("model.safetensors", "is not packed: see quantize"),
        ("x.trit", "can be named itself"),
    ):
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(FileNotFoundError, match=f"it has {name}, which {advice}: "):
            use(tmp_path)
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
        (tmp_path / name / TRIT_NAME).write_bytes(SHARDS[FIRST])
    with pytest.raises(FileNotFoundError, match="packed models within: a, b: "):
        use(tmp_path)
    with pytest.raises(FileNotFoundError):
        use(tmp_path / "absent")


def test_tensors_are_those_of_the_shards(folder: Path) -> None:
    """Every tensor, whole, cut and by rows, is what its file gives; keys are in the order of their bytes."""
    expected = {name: tensor for shard in SHARDS for name, tensor in load_file(folder / shard).items()}
    with open_model(folder) as model:
        assert model.keys() == sorted(expected, key=str.encode)
        assert model.shards == list(SHARDS)
        for name, tensor in expected.items():
            with open_file(folder / model.shard_of(name)) as file:
                assert model.entry(name).digests == file.entry(name).digests
            if isinstance(tensor, TritTensor):
                assert same(tensor, model.get_tensor(name))
                assert same(tensor.truncate(1), model.get_tensor(name, depth=1))
                assert same(tensor.get_rows(2, 5), model.get_rows(name, 2, 5))
            else:
                raw = model.get_tensor(name)
                assert isinstance(raw, np.ndarray)
                assert np.array_equal(tensor, raw)


def test_a_tensor_that_is_not_there(folder: Path) -> None:
    """The error names the model, and how many tensors there are."""
    with open_model(folder) as model:
        for use in (model.entry, model.get_tensor, model.shard_of):
            with refused(None, str(folder)) as caught:
                use("q")
            assert "no tensor 'q' among the 8" in str(caught.value)
        with refused(None, str(folder)):
            model.get_rows("q", 0, 1)


def test_metadata_is_what_all_shards_have(tmp_path: Path) -> None:
    """Pairs that differ between shards are not the model's; a model without shards has none."""
    with open_model(many(tmp_path / "many", 3)) as model:
        assert model.metadata == {"format": "pt"}
        with model.shard(model.shards[1]) as file:
            assert file.metadata == {"format": "pt", "n": "1"}
    with open_model(write(tmp_path / "none", sound({}))) as model:
        assert (model.metadata, model.keys(), model.shards) == ({}, [], [])


# What is read when


def test_opening_reads_the_index_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No shard is read before something of it is asked for, and none but that."""
    opened: list[str] = []
    init = Source.__init__

    def counted(self: Source, path: Path) -> None:
        opened.append(Path(path).name)
        init(self, path)

    monkeypatch.setattr(Source, "__init__", counted)
    with open_model(folder) as model:
        assert opened == [INDEX_NAME]
        model.get_tensor("c.w")
        model.entry("c.w.bias")
        assert opened == [INDEX_NAME, SECOND]
        assert model.metadata
        assert opened[2:] == [name for name in SHARDS if name != SECOND]


def test_an_index_that_is_too_long_is_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """IDX-1 before memory: of a sparse file of a terabyte, no more than the limit and a byte is read."""
    monkeypatch.setattr(shards, "MAX_INDEX_SIZE", 1 << 20)
    with (folder / INDEX_NAME).open("ab") as file:
        file.truncate(MAX_INDEX_SIZE + 1)
    reads = record_reads(monkeypatch)
    with refused("IDX-2", str(folder)):
        open_model(folder)
    assert reads == [(0, (1 << 20) + 1)]
    monkeypatch.undo()
    with refused("IDX-1", str(folder)):
        open_model(folder)
    assert verify_model(folder).findings[0].clause == "IDX-1"


def test_few_files_stay_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many shards there are, only those that were used last stay open, and close with the model."""
    monkeypatch.setattr(shards, "MAX_OPEN", 3)
    folder, before = many(tmp_path / "many", 12), descriptors()
    with open_model(folder) as model:
        for _ in range(2):
            for name in model.keys():  # noqa: SIM118  # no mapping
                assert model.get_tensor(name).shape == model.entry(name).shape
                assert len(descriptors()) - len(before) <= 3
        assert len(descriptors()) - len(before) == 3
    assert descriptors() == before


def descriptors() -> set[str]:
    """The open files of this process that are shards."""
    place = Path("/proc/self/fd")
    links = [os.readlink(place / name) for name in os.listdir(place) if (place / name).is_symlink()]
    return {link for link in links if link.endswith(".trit")}


@pytest.mark.skipif(os.name != "posix", reason="others replace no open file")
def test_a_file_that_is_replaced_gives_no_data_of_another_model(tmp_path: Path) -> None:
    """A lone file, of which a second one is opened while the first is in use: the identity stands."""
    path = tmp_path / "model.trit"
    save_file({"a": np.zeros(3), "b": np.zeros(3)}, path)
    with open_model(path) as model:
        entries = model.entries()
        next(entries)  # holds the one open file
        save_file({"a": np.ones(3), "b": np.ones(3)}, path)
        with refused(None, str(path)) as caught:
            model.get_tensor("b")
        assert "another file has taken this name" in str(caught.value)
        entries.close()  # type: ignore[attr-defined]  # a generator
        assert not np.asarray(model.get_tensor("b")).any()


def test_a_closed_model_opens_nothing(folder: Path) -> None:
    """After close an error says so, and what was read stays."""
    model = open_model(folder)
    tensor = model.get_tensor("a.w")
    model.close()
    model.close()
    with refused(None, str(folder)) as caught:
        model.get_tensor("b.w")
    assert "closed" in str(caught.value)
    assert isinstance(tensor, TritTensor)
    assert tensor.dequantize().shape == (6, 3)


def test_closing_while_a_shard_is_in_use(folder: Path) -> None:
    """The file of a block is closed when the block ends, not before."""
    model = open_model(folder)
    with model.shard(FIRST) as file:
        model.close()
        assert isinstance(file.get_tensor("a.w"), TritTensor)
    assert not descriptors()


def test_threads_share_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many threads read many shards at once, with few that stay open, and get what one thread gets."""
    monkeypatch.setattr(shards, "MAX_OPEN", 2)
    folder = many(tmp_path / "many", 8)
    expected = {name: tensor for path in folder.glob("*.trit") for name, tensor in load_file(path).items()}
    with open_model(folder) as model, ThreadPoolExecutor(6) as pool:
        wanted = model.keys() * 20
        for name, tensor in zip(wanted, pool.map(model.get_tensor, wanted), strict=True):
            found = expected[name]
            assert isinstance(found, TritTensor)
            assert same(found, tensor)
        assert len(descriptors()) <= 2


def test_one_shard_for_two_threads_at_a_time(folder: Path) -> None:
    """A shard in use is opened again for another thread, and one file stays."""
    with open_model(folder) as model:
        with model.shard(FIRST) as file:
            other: list[object] = []
            thread = threading.Thread(target=lambda: other.append(model.get_tensor("a.w")))
            thread.start()
            thread.join()
            tensor = file.get_tensor("a.w")
            assert isinstance(tensor, TritTensor)
            assert same(tensor, other[0])
        assert len(descriptors()) == 1


def test_digests_are_compared_unless_asked_not_to(folder: Path) -> None:
    """READ-3 holds for a model as for a file."""
    data = SHARDS[SECOND]
    (folder / SECOND).write_bytes(replaced(data, len(data) - 64, data[-64] ^ 1))
    with open_model(folder) as model, refused("SEG-1", SECOND):
        model.get_tensor("c.w")
    with open_model(folder, check=False) as model:
        model.get_tensor("c.w")


# What changes meanwhile


def test_a_shard_that_is_replaced_is_compared_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """IDX-17: each time a shard is opened, its identity is looked at."""
    monkeypatch.setattr(shards, "MAX_OPEN", 1)
    with open_model(folder) as model:
        model.get_tensor("c.w")
        model.get_tensor("a.w")
        (folder / SECOND).write_bytes(folder_cases.shard("c.w", depth=2, bias=1))
        for use in (model.get_tensor, model.entry):
            with refused("IDX-15", SECOND):
                use("c.w")
        with refused("IDX-15", SECOND):
            model.get_rows("c.w", 0, 1)
        assert len(descriptors()) == 1


def test_a_shard_that_vanishes(folder: Path) -> None:
    """What is no longer there when it is asked for is missing."""
    with open_model(folder) as model:
        (folder / SECOND).unlink()
        model.get_tensor("a.w")
        with refused("IDX-12", SECOND):
            model.get_tensor("c.w")


def test_an_index_that_shrinks_while_it_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """READ-4 is no verdict: the file could not be read."""
    init = Source.__init__

    def cut(self: Source, path: Path) -> None:
        init(self, path)
        self.length += 1

    monkeypatch.setattr(Source, "__init__", cut)
    with refused("READ-4", INDEX_NAME):
        verify_model(folder)


# Links and other files


def cached(tmp_path: Path) -> Path:
    """A snapshot as a hub's client lays it out: every file is a link to a blob."""
    snapshot = tmp_path / "models--org--name" / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    blobs = tmp_path / "models--org--name" / "blobs"
    blobs.mkdir()
    for n, (name, data) in enumerate(sound(SHARDS).items()):
        (blobs / f"{n:064x}").write_bytes(data)
        (snapshot / name).symlink_to(f"../../blobs/{n:064x}")
    return snapshot


@linking
def test_a_snapshot_of_a_hub(tmp_path: Path) -> None:
    """Links to ../../blobs are read, also through another link to the folder, and from within it."""
    snapshot = cached(tmp_path)
    (tmp_path / "link").symlink_to(snapshot)
    for path in (snapshot, tmp_path / "link", snapshot / INDEX_NAME, tmp_path / "link" / INDEX_NAME):
        assert verify_model(path).ok
        with open_model(path) as model:
            assert model.get_tensor("c.w").shape == (6, 3)


@linking
@pytest.mark.parametrize("target", ["blob", "../out", "../folder/blob"])
def test_links_within_the_folder(folder: Path, target: str) -> None:
    """A link may end at another file of the folder, by whatever way."""
    (folder / SECOND).rename(folder / "blob")
    (folder.parent / "out").symlink_to(folder / "blob")
    (folder / SECOND).symlink_to(target)
    assert verify_model(folder).ok


OUT = ["../x", "../d/x", "below/x", "../../x", "../../blobs/below/x", "../../../blobs/x"]


@linking
@pytest.mark.parametrize("target", OUT)
@pytest.mark.parametrize("absolute", [False, True])
def test_links_that_lead_out(tmp_path: Path, target: str, absolute: bool) -> None:
    """A link that ends elsewhere is refused, even where the bytes are right: by both, when it is opened."""
    folder = write(tmp_path / "a" / "b" / "c", sound(SHARDS))
    place = Path(os.path.normpath(folder / target))
    place.parent.mkdir(parents=True, exist_ok=True)
    (folder / SECOND).rename(place)
    (folder / SECOND).symlink_to(place if absolute else target)
    assert load_file(folder / SECOND)
    report = verify_model(folder)
    assert [(finding.clause, finding.where) for finding in report.findings] == [
        ("IDX-12", f"shard {SECOND!a}")
    ]
    with refused("IDX-12", SECOND) as caught:
        open_model(folder)
    assert "leads out" in str(caught.value)


@linking
def test_blobs_that_are_a_link(tmp_path: Path) -> None:
    """What is called ../../blobs has to be a folder there: another one may not be passed off as it."""
    snapshot = cached(tmp_path)
    assert verify_model(snapshot).ok
    (tmp_path / "models--org--name" / "blobs").rename(tmp_path / "other")
    (tmp_path / "models--org--name" / "blobs").symlink_to(tmp_path / "other")
    assert [finding.clause for finding in verify_model(snapshot).findings] == ["IDX-12"] * 3


@linking
def test_a_shard_that_becomes_a_link_meanwhile(folder: Path) -> None:
    """The place is looked at again when the shard is opened."""
    with open_model(folder) as model:
        (folder / SECOND).rename(folder.parent / "x")
        (folder / SECOND).symlink_to("../x")
        with refused("IDX-12", SECOND):
            model.get_tensor("c.w")


@linking
@pytest.mark.parametrize("kind", ["loop", "nowhere", "pipe", "link to a pipe", "link to a folder"])
def test_what_is_no_regular_file(folder: Path, kind: str) -> None:
    """A broken link, a loop, a pipe: none is waited for, each is IDX-12."""
    (folder / SECOND).unlink()
    (folder / "sub").mkdir()
    os.mkfifo(folder / "fifo")
    if kind == "pipe":
        (folder / "fifo").rename(folder / SECOND)
    else:
        targets = {"loop": SECOND, "nowhere": "nowhere", "link to a pipe": "fifo", "link to a folder": "sub"}
        (folder / SECOND).symlink_to(targets[kind])
    assert [finding.clause for finding in verify_model(folder).findings] == ["IDX-12"]
    with refused("IDX-12", SECOND):
        open_model(folder)


@linking
def test_an_index_that_is_no_regular_file(folder: Path) -> None:
    """A pipe is not waited for; there is nothing to judge."""
    (folder / INDEX_NAME).unlink()
    os.mkfifo(folder / INDEX_NAME)
    for use in (open_model, verify_model):
        with refused(None, INDEX_NAME):
            use(folder)


# Reports


def test_a_report_has_every_fault(folder: Path) -> None:
    """Faults of the folder and of each shard stand side by side; the sums are those of what is there."""
    (folder / "x.trit").write_bytes(b"")
    data = with_bytes(SHARDS[FIRST], len(SHARDS[FIRST]) - 1, 1)
    (folder / FIRST).write_bytes(data)
    (folder / SECOND).unlink()
    report = verify_model(folder)
    assert [finding.clause for finding in report.findings] == ["IDX-12", "IDX-13"]
    assert {name: shard.verdict for name, shard in report.shards.items()} == {
        name: "invalid" if name == FIRST else "valid" for name in SHARDS if name != SECOND
    }
    assert (report.verdict, report.ok, report.tensors) == ("invalid", False, 6)
    assert report.size == sum(len(SHARDS[name]) for name in report.shards)


def test_invalid_outweighs_unsupported(folder: Path) -> None:
    """A folder with a newer shard is unsupported, and invalid where another one is."""
    (folder / SECOND).write_bytes(with_bytes(SHARDS[SECOND], 8, 2))
    assert verify_model(folder).verdict == "unsupported"
    (folder / FIRST).write_bytes(with_bytes(SHARDS[FIRST], len(SHARDS[FIRST]) - 1, 1))
    assert verify_model(folder).verdict == "invalid"


def test_progress_counts_the_bytes_of_all_shards(folder: Path) -> None:
    """The counts are those of the files by themselves, shard after shard."""
    counts: list[int] = []
    assert verify_model(folder, counts.append).ok
    alone: list[int] = []
    for name in SHARDS:
        verify_model(folder / name, alone.append)
    assert counts == alone
    assert counts


def test_a_file_is_verified_as_ever(folder: Path) -> None:
    """A `.trit` file is a model of one shard, with the identity of its header."""
    report = verify_model(folder / FIRST)
    assert (list(report.shards), report.findings, report.ok) == ([FIRST], [], True)
    with open_file(folder / FIRST) as file:
        assert report.identity == report.shards[FIRST].identity == file.identity


def test_a_shard_is_summed_up_for_the_index(folder: Path) -> None:
    """What `read_shard` gives makes the index again."""
    made = {name: read_shard(folder / name) for name in SHARDS}
    assert encode_index(made) == (folder / INDEX_NAME).read_bytes()


def test_a_shard_that_the_model_does_not_have(tmp_path: Path) -> None:
    """No name but those of `shards` gives a file, with an index and without."""
    save_file({"a": painted()}, tmp_path / "model.trit")
    with (
        open_model(tmp_path) as model,
        pytest.raises(TritError, match=r"no shard 'other\.trit' among the 1"),
        model.shard("other.trit"),
    ):
        pass


def test_metadata_is_in_the_order_of_its_keys(tmp_path: Path) -> None:
    """Of one file and of several, whatever the hash of the day."""
    for name in (FIRST, SECOND):
        save_file({name: painted()}, tmp_path / name, dict.fromkeys("zyxwvutsr", ""))
    (tmp_path / INDEX_NAME).write_bytes(encode_index({n: read_shard(tmp_path / n) for n in (FIRST, SECOND)}))
    with open_model(tmp_path) as model:
        assert list(model.metadata) == sorted("zyxwvutsr")
