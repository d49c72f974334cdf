"""Model folders in and out: what is read, what is quantised, what is written, and what a failure leaves."""

from __future__ import annotations

import contextlib
import errno
import itertools
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from helpers import same
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn
from model_helpers import (
    CONFIGS,
    MINILM,
    MODEL,
    TRIT,
    Stored,
    convert,
    floats,
    framed,
    job,
    library_takes,
    read_safetensors,
    safetensors_bytes,
    tree,
    untouched,
    values,
    weights,
    write_model,
)
from safetensors.numpy import load_file as load_safetensors
from strategies import names

from tritcodec import TritError, TritTensor, load_file, open_file, open_model, save_file, verify_file
from tritcodec.encode import quantize
from tritcodec.header import RAW_DTYPES
from tritcodec.model import measure, tasks
from tritcodec.model.companions import left_out
from tritcodec.model.export import dequantize_model, truncate_model
from tritcodec.model.folder import new_folder
from tritcodec.model.measure import Distortion, distortion_against
from tritcodec.model.plan import config_of
from tritcodec.model.policy import Policy
from tritcodec.model.run import Progress, quantize_model
from tritcodec.model.source import ModelSource, SourceTensor, read_rows, read_tensor
from tritcodec.model.spool import STATE
from tritcodec.model.workers import Inline

LAYER = "encoder.layer.0."
MATRICES = [  # of the fixture: the weights of its linear layers
    *(f"{LAYER}attention.{part}.weight" for part in ("output.dense", "self.key", "self.query", "self.value")),
    f"{LAYER}intermediate.dense.weight",
    f"{LAYER}output.dense.weight",
]
SMALL = {  # a model in small: two matrices, a norm, an embedding and what else there is
    "model.embed_tokens.weight": weights(6, 20),
    "model.layers.0.mlp.up_proj.weight": weights(7, 40),
    "model.layers.0.mlp.down_proj.weight": weights(11, 20, dtype="F16"),
    "model.norm.weight": weights(20),
    "steps": Stored("I64", (), bytes(8)),
}
FILE = Path("model.safetensors")
FLOATS = ["F32", "F16", "BF16", "F64"]  # the dtypes that can be quantised
posix = pytest.mark.skipif(os.name != "posix", reason="of POSIX systems")
NOBODY = 65534  # a user without rights, on any Unix


def trit(path: Path, name: str, depth: int | None = None) -> TritTensor:
    """A trit tensor of a file."""
    with open_file(path) as file:
        tensor = file.get_tensor(name, depth)
    assert isinstance(tensor, TritTensor)
    return tensor


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fixture model, quantised to all configs in one run."""
    return convert(MINILM, tmp_path_factory.mktemp("made") / "out", CONFIGS)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder with the small model, a configuration and a tokenizer."""
    write_model(tmp_path / "model", SMALL, {"format": "pt", "origin": "painted"})
    (tmp_path / "model" / "config.json").write_text('{"hidden_size": 20}')
    return tmp_path / "model"


# Real weights


@pytest.mark.parametrize("config", CONFIGS)
def test_every_quantised_tensor_is_what_quantize_makes_of_it(made: Path, config: str) -> None:
    """A file holds the same codebook and planes as `quantize` gives for the tensor alone."""
    source = load_safetensors(MINILM / MODEL)
    for name in MATRICES:
        expected = quantize(source[name], int(config[-1]))
        assert same(expected, trit(made / config / TRIT, name))


@pytest.mark.parametrize("config", CONFIGS)
def test_the_matrices_of_linear_layers_are_quantised_and_nothing_else(made: Path, config: str) -> None:
    """The six matrices of the layer are trit tensors; all others are raw, with every bit of the source."""
    source, _ = read_safetensors(MINILM / MODEL)
    tensors = load_file(made / config / TRIT)
    assert tensors.keys() == source.keys()
    assert [name for name, tensor in tensors.items() if isinstance(tensor, TritTensor)] == MATRICES
    for name in source.keys() - set(MATRICES):
        raw = tensors[name]
        assert isinstance(raw, np.ndarray)
        assert (raw.dtype, raw.shape) == (RAW_DTYPES[source[name].dtype], source[name].shape)
        assert raw.tobytes() == source[name].data


@pytest.mark.parametrize("config", CONFIGS)
def test_a_made_file_is_valid_and_says_where_it_comes_from(made: Path, config: str) -> None:
    """The file passes the verifier; its metadata is the source's, with config and method added."""
    assert verify_file(made / config / TRIT).findings == []
    with open_file(made / config / TRIT) as file:
        expected = {"format": "pt", "tritcodec.config": config, "tritcodec.method": "optimal"}
        assert file.metadata == expected


@pytest.mark.parametrize("config", CONFIGS)
def test_the_other_files_of_the_model_come_along(made: Path, config: str) -> None:
    """A config's folder holds model.trit and byte for byte the other files of the source, and no more."""
    companions = {name: data for name, data in tree(MINILM).items() if name != MODEL}
    found = tree(made / config)
    del found[TRIT]
    assert found == companions
    assert sorted(os.listdir(made)) == CONFIGS


def test_the_same_run_gives_the_same_bytes(made: Path, tmp_path: Path) -> None:
    """Made again, alone or in another order, a config's folder has the same bytes."""
    convert(MINILM, tmp_path / "alone", ["uniform-d3"])
    convert(MINILM, tmp_path / "turned", ["uniform-d2", "uniform-d1"])
    assert tree(tmp_path / "alone" / "uniform-d3") == tree(made / "uniform-d3")
    for config in ("uniform-d1", "uniform-d2"):
        assert tree(tmp_path / "turned" / config) == tree(made / config)


@pytest.mark.parametrize("configs", [["uniform-d2"], CONFIGS, ["bpw-7", "uniform-d1"]])
def test_weights_are_read_twice_whatever_is_made_of_them(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, configs: list[str]
) -> None:
    """Once for the survey and once to be encoded; raw tensors once more for every config that copies them."""
    read: Counter[str] = Counter()
    rows = read_rows

    def counted(tensor: SourceTensor, start: int, stop: int) -> npt.NDArray[Any]:
        read[tensor.name] += (stop - start) * (tensor.shape[-1] if tensor.shape else 1)
        return rows(tensor, start, stop)

    monkeypatch.setattr(tasks, "read_rows", counted)
    convert(model, tmp_path / "out", configs)
    for name, stored in SMALL.items():
        times = 2 if "proj" in name else 1 + len(configs)
        assert read[name] == times * math.prod(stored.shape)


def test_the_error_falls_with_every_depth(made: Path) -> None:
    """Signal to noise over the matrices grows by about 9 dB a trit, a factor of 3 in the error."""
    ratios = []
    tensors = {tensor.name: tensor for tensor in ModelSource(MINILM).tensors}
    for config in CONFIGS:
        total = Distortion()
        for name in MATRICES:
            total += distortion_against(tensors[name], trit(made / config / TRIT, name))
        ratios.append(total.sqnr)
    assert ratios[0] > 6
    assert all(8 < finer - coarser < 11 for coarser, finer in itertools.pairwise(ratios))


@pytest.mark.parametrize("band", [1 << 20, 1000, 1])
def test_distortion_is_the_sum_of_squares(made: Path, monkeypatch: pytest.MonkeyPatch, band: int) -> None:
    """Band by band, signal and noise come to what NumPy gives for the whole tensor."""
    monkeypatch.setattr(measure, "BAND_WEIGHTS", band)
    name = f"{LAYER}output.dense.weight"
    w = load_safetensors(MINILM / MODEL)[name].astype(np.float64)
    tensor = trit(made / "uniform-d1" / TRIT, name)
    (of_source,) = (item for item in ModelSource(MINILM).tensors if item.name == name)
    found = distortion_against(of_source, tensor)
    noise = float(np.square(w - tensor.dequantize("F32")).sum())
    assert math.isclose(found.signal, float(np.square(w).sum()), rel_tol=1e-12)
    assert math.isclose(found.noise, noise, rel_tol=1e-12)
    assert math.isclose(found.sqnr, 10 * math.log10(found.signal / noise))


def test_distortion_of_nothing_and_of_no_signal() -> None:
    """Without noise the ratio is infinite, without signal minus infinite: no division by zero."""
    assert Distortion(1.0, 0.0).sqnr == Distortion().sqnr == math.inf
    assert Distortion(0.0, 1.0).sqnr == -math.inf


# Back to safetensors


@pytest.mark.parametrize("config", CONFIGS)
def test_a_dequantised_folder_loads_in_the_stock_loader(made: Path, tmp_path: Path, config: str) -> None:
    """Matrices equal TritTensor.dequantize in the source's dtype, and the rest is the source's."""
    dequantize_model(made / config, tmp_path / "back")
    source = load_safetensors(MINILM / MODEL)
    found = load_safetensors(tmp_path / "back" / MODEL)
    assert found.keys() == source.keys()
    for name, array in found.items():
        expected = trit(made / config / TRIT, name).dequantize() if name in MATRICES else source[name]
        assert (array.dtype, array.shape) == (expected.dtype, expected.shape)
        assert array.tobytes() == expected.tobytes()
    assert read_safetensors(tmp_path / "back" / MODEL)[1] == {"format": "pt"}
    expected_files = {name: data for name, data in tree(MINILM).items() if name != MODEL}
    assert {name: data for name, data in tree(tmp_path / "back").items() if name != MODEL} == expected_files


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("depth", [1, 3])
def test_dequantised_to_another_dtype_and_a_lower_depth(
    made: Path, tmp_path: Path, dtype: str, depth: int
) -> None:
    """Matrices get the dtype and the depth that are asked for; raw tensors keep their dtype and bits."""
    dequantize_model(made / "uniform-d4", tmp_path / "back", dtype=dtype, depth=depth)
    found, _ = read_safetensors(tmp_path / "back" / MODEL)
    source, _ = read_safetensors(MINILM / MODEL)
    for name in MATRICES:
        expected = trit(made / "uniform-d4" / TRIT, name).truncate(depth).dequantize(dtype)
        assert found[name] == Stored(dtype, expected.shape, expected.tobytes())
    for name in source.keys() - set(MATRICES):
        assert found[name] == source[name]


def test_a_depth_above_the_files_own_changes_nothing(made: Path, tmp_path: Path) -> None:
    """Files mix depths, so a tensor that is not as deep is left as it is."""
    dequantize_model(made / "uniform-d2", tmp_path / "all")
    dequantize_model(made / "uniform-d2", tmp_path / "more", depth=4)
    assert tree(tmp_path / "all") == tree(tmp_path / "more")
    truncate_model(made / "uniform-d2", tmp_path / "cut", 3)
    assert tree(tmp_path / "cut") == tree(made / "uniform-d2")


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_truncating_a_folder_and_a_file(made: Path, tmp_path: Path, depth: int) -> None:
    """Both give the same valid file of the top planes; the folder has the other files, too."""
    truncate_model(made / "uniform-d4", tmp_path / "cut", depth)
    truncate_model(made / "uniform-d4" / TRIT, tmp_path / "cut.trit", depth)
    assert (tmp_path / "cut.trit").read_bytes() == (tmp_path / "cut" / TRIT).read_bytes()
    assert verify_file(tmp_path / "cut.trit").ok
    for name in MATRICES:
        expected = trit(made / "uniform-d4" / TRIT, name).truncate(depth)
        assert same(expected, trit(tmp_path / "cut.trit", name))
    others = tree(tmp_path / "cut").keys() - {TRIT}
    assert others == tree(MINILM).keys() - {MODEL}


def test_dequantising_the_truncated_is_dequantising_to_the_depth(made: Path, tmp_path: Path) -> None:
    """Cutting the file and cutting while decoding lead to the same safetensors file."""
    truncate_model(made / "uniform-d4", tmp_path / "cut", 2)
    dequantize_model(tmp_path / "cut", tmp_path / "one")
    dequantize_model(made / "uniform-d4", tmp_path / "other", depth=2)
    assert tree(tmp_path / "one") == tree(tmp_path / "other")


def test_truncating_a_file_onto_itself(made: Path, tmp_path: Path) -> None:
    """The source may be the target: it is replaced when the new file is complete."""
    path = tmp_path / "model.trit"
    shutil.copyfile(made / "uniform-d3" / TRIT, path)
    truncate_model(path, path, 1)
    truncate_model(made / "uniform-d3" / TRIT, tmp_path / "other.trit", 1)
    assert path.read_bytes() == (tmp_path / "other.trit").read_bytes()


def test_a_lone_trit_file_has_no_companions(made: Path, tmp_path: Path) -> None:
    """Dequantising a file gives a folder with model.safetensors alone, whatever lies beside the file."""
    dequantize_model(made / "uniform-d1" / TRIT, tmp_path / "back")
    assert list(tree(tmp_path / "back")) == [MODEL]


def test_a_tensor_that_safetensors_cannot_name_is_refused(tmp_path: Path) -> None:
    """A .trit file may name a tensor __metadata__, which is none in safetensors: nothing is written."""
    save_file({"__metadata__": np.ones(3, np.float32)}, tmp_path / "odd.trit")
    with untouched(tmp_path), pytest.raises(TritError, match="__metadata__"):
        dequantize_model(tmp_path / "odd.trit", tmp_path / "back")


# The policy

EMBEDDING, HEAD, NORM = "embedding", "output head", "normalisation"
FAMILIES: list[tuple[str, tuple[int, ...], str | None]] = [
    # llama, mistral, qwen 2 and 3, gemma
    ("model.embed_tokens.weight", (32000, 4096), EMBEDDING),
    ("model.layers.0.self_attn.q_proj.weight", (4096, 4096), None),
    ("model.layers.0.self_attn.o_proj.weight", (4096, 4096), None),
    ("model.layers.0.self_attn.q_proj.bias", (4096,), "rank 1"),
    ("model.layers.0.self_attn.q_norm.weight", (128,), "rank 1"),
    ("model.layers.0.mlp.gate_proj.weight", (11008, 4096), None),
    ("model.layers.0.mlp.down_proj.weight", (4096, 11008), None),
    ("model.layers.0.input_layernorm.weight", (4096,), "rank 1"),
    ("model.layers.0.post_attention_layernorm.weight", (4096,), "rank 1"),
    ("model.layers.0.self_attn.rotary_emb.inv_freq", (64,), "rank 1"),
    ("model.norm.weight", (4096,), "rank 1"),
    ("lm_head.weight", (32000, 4096), HEAD),
    # command-r: a norm of one row a head
    ("model.layers.0.self_attn.k_norm.weight", (8, 128), NORM),
    # gpt-2, with and without its prefix, and qwen 1
    ("wte.weight", (50257, 768), EMBEDDING),
    ("wpe.weight", (1024, 768), EMBEDDING),
    ("transformer.wte.weight", (50257, 768), EMBEDDING),
    ("transformer.wpe.weight", (1024, 768), EMBEDDING),
    ("h.0.attn.c_attn.weight", (768, 2304), None),
    ("h.0.attn.c_attn.bias", (2304,), "rank 1"),
    ("h.0.attn.bias", (1, 1, 1024, 1024), "rank 4"),
    ("h.0.mlp.c_fc.weight", (768, 3072), None),
    ("h.0.ln_1.weight", (768,), "rank 1"),
    ("ln_f.bias", (768,), "rank 1"),
    ("transformer.h.0.attn.c_proj.weight", (4096, 4096), None),
    # bert and roberta
    ("embeddings.word_embeddings.weight", (30522, 384), EMBEDDING),
    ("bert.embeddings.position_embeddings.weight", (512, 384), EMBEDDING),
    ("bert.embeddings.token_type_embeddings.weight", (2, 384), EMBEDDING),
    ("embeddings.LayerNorm.weight", (384,), "rank 1"),
    ("encoder.layer.0.attention.self.query.weight", (384, 384), None),
    ("encoder.layer.0.attention.output.dense.weight", (384, 384), None),
    ("bert.encoder.layer.0.output.LayerNorm.bias", (384,), "rank 1"),
    ("pooler.dense.weight", (384, 384), None),
    ("roberta.lm_head.decoder.weight", (50265, 768), HEAD),
    # mixtral
    ("model.layers.0.block_sparse_moe.gate.weight", (8, 4096), None),
    ("model.layers.0.block_sparse_moe.experts.0.w1.weight", (14336, 4096), None),
    ("model.layers.0.block_sparse_moe.experts.7.w2.weight", (4096, 14336), None),
    ("model.layers.0.block_sparse_moe.experts.7.w3.weight", (14336, 4096), None),
    # experts in one tensor
    ("model.layers.0.mlp.experts.gate_up_proj", (32, 2880, 5760), None),
    ("model.layers.0.mlp.experts.gate_up_proj_bias", (32, 5760), "bias"),
    ("backbone.layers.0.mixer.conv1d.weight", (1536, 1, 4), "rank 3"),
    # opt, gpt-neox, bloom, t5, mamba
    ("model.decoder.embed_positions.weight", (2050, 768), EMBEDDING),
    ("gpt_neox.embed_in.weight", (50432, 2048), EMBEDDING),
    ("gpt_neox.layers.0.attention.query_key_value.weight", (6144, 2048), None),
    ("transformer.word_embeddings.weight", (250880, 1024), EMBEDDING),
    ("encoder.block.0.layer.0.SelfAttention.q.weight", (512, 512), None),
    ("backbone.embeddings.weight", (50280, 768), EMBEDDING),
    ("backbone.layers.0.mixer.in_proj.weight", (3072, 768), None),
    ("backbone.layers.0.mixer.conv1d.weight", (1536, 1, 4), "rank 3"),
    # vision
    ("vision_model.embeddings.patch_embedding.weight", (768, 3, 16, 16), "rank 4"),
    ("patch_embed.proj.weight", (768, 3, 16, 16), "rank 4"),
    ("visual.patch_embed.proj.weight", (1280, 3, 2, 14, 14), "rank 5"),
    ("vision_model.embeddings.position_embedding.weight", (257, 1024), EMBEDDING),
    ("positional_embedding", (77, 512), EMBEDDING),
    ("pos_embed", (1, 197, 768), "rank 3"),
    ("blocks.0.attn.qkv.weight", (2304, 768), None),
    ("visual.merger.mlp.0.weight", (5120, 5120), None),
    # shapes
    ("logit_scale", (), "scalar"),
    ("narrow.weight", (4096, 3), None),
    ("one.weight", (1, 1), None),
    ("none.weight", (0, 16), "empty"),
    ("none.bias", (0,), "empty"),
    # case does not matter
    ("Model.Embed_Tokens.Weight", (32, 16), EMBEDDING),
]


@pytest.mark.parametrize(("name", "shape", "reason"), FAMILIES, ids=[name for name, _, _ in FAMILIES])
def test_the_recipe_on_real_families(name: str, shape: tuple[int, ...], reason: str | None) -> None:
    """Matrices of linear layers are quantised; embeddings, heads, norms and other ranks are kept, and why."""
    assert Policy().reason_to_keep(SourceTensor(name, "BF16", shape, FILE, 0)) == reason


NO_LINEAR_LAYER: list[tuple[str, tuple[int, ...]]] = [  # of rank 2, and no matrix of a linear layer
    ("shared.weight", (32128, 512)),  # t5: the token embedding
    ("model.shared.weight", (50265, 768)),  # bart: likewise
    ("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", (32, 8)),  # t5: the positions
    ("tok_emb.weight", (50257, 768)),  # mingpt
    ("output.weight", (32000, 4096)),  # the first llama: the head
    ("model.output.weight", (92544, 4096)),  # internlm 2: the head
    ("transformer.output_layer.weight", (65024, 4096)),  # chatglm: the head
    ("cls.predictions.decoder.weight", (30522, 768)),  # bert: the head
    ("backbone.layers.0.mixer.A_log", (1536, 16)),  # mamba: logarithms of decay rates
    ("model.layers.0.self_attn.q_proj.weight_scale_inv", (32, 32)),  # deepseek v3: scales of FP8 weights
    ("model.layers.0.mlp.up_proj.scales", (32, 11008)),  # gptq and awq: scales of packed weights
]


@pytest.mark.parametrize(("name", "shape"), NO_LINEAR_LAYER, ids=[name for name, _ in NO_LINEAR_LAYER])
def test_the_recipe_keeps_what_is_no_linear_layer(name: str, shape: tuple[int, ...]) -> None:
    """Embeddings, heads and scales under their less usual names are kept, too."""
    assert Policy().reason_to_keep(SourceTensor(name, "F32", shape, FILE, 0)) is not None


@pytest.mark.parametrize("dtype", FLOATS)
def test_float_matrices_are_quantised(dtype: str) -> None:
    """All four float dtypes that the encoder takes."""
    assert Policy().reason_to_keep(SourceTensor("q.weight", dtype, (16, 16), FILE, 0)) is None


@pytest.mark.parametrize("dtype", sorted(RAW_DTYPES.keys() - set(FLOATS)))
def test_every_other_dtype_is_kept_and_cannot_be_asked_for(dtype: str) -> None:
    """Integers, booleans, FP8 and complex numbers stay raw; the reason names the dtype."""
    tensor = SourceTensor("q.weight", dtype, (16, 16), FILE, 0)
    reason = Policy().reason_to_keep(tensor)
    assert reason is not None
    assert dtype in reason.split()
    with pytest.raises(TritError, match=r"'q\.weight'.*cannot be quantised.*" + dtype):
        Policy(quantize=["q.*"]).reason_to_keep(tensor)


def test_an_integer_is_called_so_and_a_boolean_is_not() -> None:
    """The reason says integer for integers only."""
    reasons = {
        dtype: Policy().reason_to_keep(SourceTensor("x", dtype, (2, 2), FILE, 0))
        for dtype in ("I64", "U8", "BOOL", "F8_E4M3")
    }
    assert reasons["I64"] == "integer I64"
    assert reasons["U8"] == "integer U8"
    assert all("integer" not in (reasons[dtype] or "") for dtype in ("BOOL", "F8_E4M3"))


@pytest.mark.parametrize(
    ("keep", "ask", "kept"),
    [
        ([], ["emb*"], False),  # asking overrules the recipe,
        (["lin*"], [], True),  # and so does keeping,
        (["*"], ["*"], True),  # which wins over asking
        (["nothing*", "lin*"], [], True),
        ([], ["nothing*", "emb*"], False),
        (["LIN*"], [], False),  # patterns mind case
        ([], ["EMB*"], True),
        (["lin"], [], False),  # and match whole names
        (["linear.[vw]*"], [], True),
        (["linear.?eight"], [], True),
    ],
)
def test_keeping_wins_over_asking_and_both_over_the_recipe(
    keep: list[str], ask: list[str], kept: bool
) -> None:
    """The order of precedence, and how patterns match."""
    name = "embed.weight" if any("emb" in pattern.lower() for pattern in ask) else "linear.weight"
    reason = Policy(keep, ask).reason_to_keep(SourceTensor(name, "F32", (4, 4), FILE, 0))
    assert (reason is not None) == kept


@pytest.mark.parametrize(
    ("dtype", "shape", "why"),
    [("I32", (4, 4), "integer I32"), ("F32", (), "scalar"), ("F32", (4, 0), "empty"), ("C64", (4, 4), "C64")],
)
def test_asking_for_the_impossible(dtype: str, shape: tuple[int, ...], why: str) -> None:
    """The error names the tensor, the pattern and the reason."""
    with pytest.raises(TritError, match=rf"tensor 'x': .*x\*.*{why}"):
        Policy(quantize=["x*"]).reason_to_keep(SourceTensor("x", dtype, shape, FILE, 0))


@pytest.mark.parametrize("shape", [(5,), (2, 3, 4), (2, 1, 3, 2)])
def test_other_ranks_can_be_asked_for(shape: tuple[int, ...], tmp_path: Path) -> None:
    """A bias or a convolution is quantised on demand, along its last axis."""
    source = write_model(tmp_path / "model", {"x": weights(*shape)})
    convert(source, tmp_path / "out", policy=Policy(quantize=["x"]))
    expected = quantize(values(*shape).astype(np.float32), 2)
    assert same(expected, trit(tmp_path / "out" / "uniform-d2" / TRIT, "x"))


@pytest.mark.parametrize("policy", [Policy(keep=["typo*"]), Policy(quantize=["typo*"])])
def test_a_pattern_that_matches_nothing_is_an_error(model: Path, policy: Policy) -> None:
    """It is mistyped, and its tensors would silently go the wrong way."""
    with pytest.raises(TritError, match=r"'typo\*' matches no tensor"):
        job(model, ["uniform-d1"], policy)


def test_a_depth_for_what_is_kept_is_an_error(model: Path) -> None:
    """It would do nothing; with `quantize` it does."""
    with pytest.raises(TritError, match="is for what is kept raw"):
        job(model, ["uniform-d1"], Policy(keep=["*"], depths=[("*", 3)]))
    job(model, ["uniform-d1"], Policy(depths=[("*", 3)]))


# Sources


def every_dtype() -> dict[str, Stored]:
    """A tensor of each dtype, scalars, empty ones and odd names."""
    tensors = {
        f"of {dtype}": Stored(dtype, (3, 2), bytes(i % 2 for i in range(6 * stored.itemsize)))
        for dtype, stored in RAW_DTYPES.items()
        if dtype not in FLOATS and library_takes(dtype)
    }
    return tensors | {
        "w32.weight": weights(6, 17),
        "w16.weight": weights(5, 16, dtype="F16"),
        "wb16.weight": weights(4, 3, dtype="BF16"),
        "w64.weight": weights(1, 33, dtype="F64"),
        "scalar": Stored("I64", (), b"\1" * 8),
        "empty": Stored("F32", (0, 5), b""),
        "also empty": Stored("F16", (3, 0), b""),
        "ends empty": Stored("U8", (0,), b""),
        " spaces ": weights(2),
        "重み.ü.\N{GRINNING FACE}.weight": weights(3, 4),
        "a/../b\\c'\"%s{}.weight": weights(2, 2),
        "-": weights(1),
        "n" * 512: weights(1),
    }


def test_a_lone_file_of_every_dtype_and_odd_names(tmp_path: Path) -> None:
    """Raw tensors keep their bits there and back; matrices of all four float dtypes are quantised."""
    tensors = every_dtype()
    source = write_model(tmp_path / "odd.safetensors", tensors, {"format": "np", "ключ": "é\n\0"})
    convert(source, tmp_path / "out")
    path = tmp_path / "out" / "uniform-d2" / TRIT
    assert verify_file(path).findings == []
    assert os.listdir(tmp_path / "out" / "uniform-d2") == [TRIT]
    dequantize_model(path, tmp_path / "back")
    found, metadata = read_safetensors(tmp_path / "back" / MODEL)
    assert metadata == {"format": "np", "ключ": "é\n\0"}
    assert found.keys() == tensors.keys()
    matrices = {
        "w32.weight",
        "w16.weight",
        "wb16.weight",
        "w64.weight",
        "重み.ü.\N{GRINNING FACE}.weight",
        "a/../b\\c'\"%s{}.weight",
    }
    assert {name: found[name] for name in tensors.keys() - matrices} == {
        name: tensors[name] for name in tensors.keys() - matrices
    }
    assert found["w64.weight"].dtype == "F32"  # there is no trit tensor of F64
    for name in matrices:
        expected = quantize(values(*tensors[name].shape).astype(np.float32), 2)
        assert trit(path, name).levels().tobytes() == expected.levels().tobytes()


def test_a_model_without_tensors(tmp_path: Path) -> None:
    """Nothing to quantise is no error: the file is valid, and goes back."""
    source = write_model(tmp_path / "none.safetensors", {}, {"a": "b"})
    convert(source, tmp_path / "out", CONFIGS)
    for config in CONFIGS:
        assert verify_file(tmp_path / "out" / config / TRIT).ok
    dequantize_model(tmp_path / "out" / "uniform-d4", tmp_path / "back")
    assert read_safetensors(tmp_path / "back" / MODEL) == ({}, {"format": "pt", "a": "b"})


def test_a_row_shorter_than_a_group(tmp_path: Path) -> None:
    """Its one group is short; nothing is padded that could be seen."""
    source = write_model(tmp_path / "model", {"w.weight": weights(9, 3)})
    convert(source, tmp_path / "out", CONFIGS)
    for config in CONFIGS:
        expected = quantize(values(9, 3).astype(np.float32), int(config[-1]))
        assert same(expected, trit(tmp_path / "out" / config / TRIT, "w.weight"))


@pytest.mark.parametrize(
    "options",
    [{"group_size": 7}, {"method": "tritllm-v2"}, {"nested": True}, {"group_size": 65_536}],
    ids=["groups of 7", "tritllm-v2", "nested", "one group a row"],
)
def test_the_encoders_options_reach_it(model: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    """Group size, method and nesting are those of `quantize`, and the file names the method."""
    convert(model, tmp_path / "out", ["uniform-d3"], **options)
    path = tmp_path / "out" / "uniform-d3" / TRIT
    expected = quantize(values(7, 40).astype(np.float32), 3, **options)
    assert same(expected, trit(path, "model.layers.0.mlp.up_proj.weight"))
    with open_file(path) as file:
        method = options.get("method", "optimal") + (", nested" if options.get("nested") else "")
        assert file.metadata["tritcodec.method"] == method


def test_the_order_of_the_source_does_not_matter(tmp_path: Path) -> None:
    """The same tensors in another order give the same file."""
    one = write_model(tmp_path / "one.safetensors", SMALL, {"a": "1", "b": "2"})
    turned = dict(reversed(SMALL.items()))
    other = write_model(tmp_path / "other.safetensors", turned, {"b": "2", "a": "1"})
    convert(one, tmp_path / "out1")
    convert(other, tmp_path / "out2")
    assert tree(tmp_path / "out1") == tree(tmp_path / "out2")


def test_a_folder_without_weights(tmp_path: Path) -> None:
    """The error names the folder and the file that is missing."""
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(
        TritError, match=r"neither model\.safetensors nor model\.safetensors\.index\.json"
    ) as caught:
        ModelSource(tmp_path)
    assert caught.value.where == str(tmp_path)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("consolidated.safetensors", "can be named itself"),
        ("model.trit", "is packed already: see dequantize"),
        ("pytorch_model.bin", "is to be saved as safetensors first"),
    ],
)
def test_a_folder_with_other_weights(tmp_path: Path, name: str, advice: str) -> None:
    """The error says what is there, and what that is good for."""
    (tmp_path / name).write_text("")
    with pytest.raises(TritError, match=rf"in the folder; it has {name}, which {advice}$"):
        ModelSource(tmp_path)


def test_a_folder_of_shards_without_their_index(tmp_path: Path) -> None:
    """To name one of them would make a model of a part."""
    (tmp_path / "model-00001-of-00002.safetensors").write_text("")
    message = "it has model-00001-of-00002.safetensors, and no index of such shards"
    with pytest.raises(TritError, match=f"{message}$"):
        ModelSource(tmp_path)
    (tmp_path / "model-00001-of-00002.trit").write_text("")
    with pytest.raises(FileNotFoundError, match=r"it has model-00001-of-00002\.trit, and no index of such"):
        open_model(tmp_path)


@posix
def test_what_is_no_file_of_weights_is_not_offered(tmp_path: Path) -> None:
    """Links to nothing, folders, indexes and what a system hides."""
    (tmp_path / "model.safetensors").symlink_to("nowhere")
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "pytorch_model.bin.index.json").write_text("{}")
    (tmp_path / "._other.trit").write_text("")
    with pytest.raises(TritError, match=r"index\.json in the folder$"):
        ModelSource(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"index\.json in the folder: "):
        open_model(tmp_path)


VALID = safetensors_bytes({"w.weight": weights(4, 16)})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"abcd",
        bytes(8),
        VALID[:5],
        VALID[:40],
        VALID[:-1],
        VALID + b"\0",
        b"\xff" * 8 + VALID[8:],
        b"PK\3\4" + bytes(60),
        b"GGUF" + bytes(60),
        framed("not json"),
        framed("[]"),
        framed(b'{"\xff": 1}'),
        framed({"w.weight": {"dtype": "F32", "shape": [4], "data_offsets": [0, 15]}}, bytes(15)),
        framed({"w.weight": {"dtype": "F32", "shape": [1 << 63, 2], "data_offsets": [0, 4]}}, bytes(4)),
        framed({"w.weight": {"dtype": "X9", "shape": [4], "data_offsets": [0, 16]}}, bytes(16)),
    ],
)
def test_a_file_that_is_no_safetensors(tmp_path: Path, data: bytes) -> None:
    """Cut off, longer, or foreign: a TritError that names the file, and no other exception."""
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    with pytest.raises(TritError, match="not a valid safetensors file") as caught:
        ModelSource(path)
    assert caught.value.where == str(path)


@pytest.mark.parametrize("dtype", ["F4", "F6_E2M3", "F8_E4M3FNUZ", "F8_E5M2FNUZ"])
def test_a_dtype_that_the_format_lacks(tmp_path: Path, dtype: str) -> None:
    """Where safetensors knows a dtype that .trit lacks, the error names file, tensor, dtype and clause."""
    size = {"F4": 4, "F6_E2M3": 6}.get(dtype, 8)
    path = write_model(tmp_path / "x.safetensors", {"w.weight": Stored(dtype, (8,), bytes(size))})
    with pytest.raises(TritError) as caught:
        ModelSource(path)
    assert str(path) in caught.value.where
    if caught.value.clause:  # older versions of the library refuse the dtype themselves
        assert (caught.value.clause, dtype in caught.value.message) == ("RAW-1", True)
        assert "'w.weight'" in caught.value.where


@pytest.mark.parametrize(
    "header",
    [
        '{"__metadata__": null, "w.weight": {"dtype": "F32", "shape": [4, 16], "data_offsets": [0, 256]}}',
        '{"w.weight": ["F32", [4, 16], [0, 256]]}',
        ' {"w.weight": {"shape": [4, 16], "data_offsets": [0, 256], "dtype": "F32", "more": [1.5, null]}} ',
    ],
    ids=["metadata that is null", "an entry that is an array", "spaces and a key more"],
)
def test_headers_that_the_library_takes(tmp_path: Path, header: str) -> None:
    """What safetensors reads is read, or refused with a TritError; never another exception."""
    path = tmp_path / "x.safetensors"
    path.write_bytes(framed(header, weights(4, 16).data))
    try:
        convert(path, tmp_path / "out")
    except TritError:
        return
    expected = quantize(values(4, 16).astype(np.float32), 2)
    assert same(expected, trit(tmp_path / "out" / "uniform-d2" / TRIT, "w.weight"))


@settings(deadline=None, max_examples=150)
@given(at=st.integers(8, len(VALID) - 257), replaced=st.integers(0, 3), put=st.binary(max_size=3))
def test_a_mutated_header_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, at: int, replaced: int, put: bytes
) -> None:
    """Whatever a header says, there are tensors within the file, or a TritError."""
    path = tmp_path_factory.getbasetemp() / "mutated.safetensors"
    header, data = VALID[8:-256], VALID[-256:]
    path.write_bytes(framed(header[: at - 8] + put + header[at - 8 + replaced :], data))
    try:
        source = ModelSource(path)
    except TritError:
        return
    for tensor in source.tensors:
        assert read_tensor(tensor).shape == tensor.shape


@pytest.mark.parametrize("dtype", FLOATS)
def test_weights_that_are_not_finite(tmp_path: Path, dtype: str) -> None:
    """The error names the tensor and counts what is wrong; nothing is left on disk."""
    bad = values(4, 16)
    bad[0, 3] = bad[3, 15] = np.nan
    bad[1, 1] = -np.inf
    source = write_model(
        tmp_path / "model", {"good.weight": weights(3, 16), "layer.bad.weight": floats(bad, dtype)}
    )
    with untouched(tmp_path), pytest.raises(TritError, match="2 are NaN and 1 are infinite") as caught:
        convert(source, tmp_path / "deep" / "out", CONFIGS)
    assert caught.value.where == f"{source / MODEL}: tensor 'layer.bad.weight'"


def test_a_double_beyond_single_precision(tmp_path: Path) -> None:
    """It would become infinite, and is refused like infinity."""
    source = write_model(tmp_path / "model", {"w.weight": floats([[1e300, 1.0]], "F64")})
    with untouched(tmp_path), pytest.raises(TritError, match="1 are infinite"):
        convert(source, tmp_path / "out")


def test_kept_tensors_may_hold_anything(tmp_path: Path) -> None:
    """NaN and infinity in a raw tensor are bits like others."""
    bad = floats([[np.nan, np.inf], [-np.inf, -np.nan]])
    source = write_model(tmp_path / "model", {"embed.weight": bad})
    convert(source, tmp_path / "out")
    dequantize_model(tmp_path / "out" / "uniform-d2", tmp_path / "back")
    assert read_safetensors(tmp_path / "back" / MODEL)[0]["embed.weight"] == bad


def test_a_boolean_that_is_none_makes_no_invalid_file(tmp_path: Path) -> None:
    """safetensors takes any byte for a BOOL, the format only 0 and 1: such a source is refused by name."""
    source = write_model(
        tmp_path / "model", {"mask": Stored("BOOL", (3,), b"\0\1\2"), "w.weight": weights(2, 2)}
    )
    with untouched(tmp_path), pytest.raises(TritError, match="RAW-2") as caught:
        convert(source, tmp_path / "out")
    assert "'mask'" in caught.value.where


@pytest.mark.parametrize(
    ("tensors", "metadata", "clause"),
    [
        ({"": weights(1)}, {}, "NAME-1"),
        ({"n" * 513: weights(1)}, {}, "NAME-1"),
        ({"a\nb": weights(1)}, {}, "NAME-2"),
        ({"a\x1b[2J": weights(2, 2)}, {}, "NAME-2"),
        ({"r": Stored("U8", (1,) * 9, b"1")}, {}, "SHAPE-1"),
        ({}, {"": "empty key"}, "NAME-1"),
        ({}, {"a\0b": "control character"}, "NAME-2"),
        ({}, {str(i): "" for i in range(1025)}, "HDR-5"),
        ({}, {"long": "v" * ((1 << 20) + 1)}, "HDR-6"),
    ],
)
def test_what_the_format_cannot_hold(
    tmp_path: Path, tensors: dict[str, Stored], metadata: dict[str, str], clause: str
) -> None:
    """Names, ranks and metadata beyond the limits are refused with their clause; nothing is left on disk."""
    source = write_model(tmp_path / "model", tensors, metadata)
    with untouched(tmp_path), pytest.raises(TritError) as caught:
        convert(source, tmp_path / "out")
    assert caught.value.clause == clause
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 800


@posix
def test_a_cache_folder_of_links(tmp_path: Path) -> None:
    """Hugging Face's cache holds links to blobs: contents are read and copied, never the links."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    (blobs / "0001").write_bytes(safetensors_bytes(SMALL))
    (blobs / "0002").write_text("{}")
    (snapshot / MODEL).symlink_to("../../blobs/0001")
    (snapshot / "config.json").symlink_to("../../blobs/0002")
    (snapshot / "broken.json").symlink_to("../../blobs/0003")
    convert(snapshot, tmp_path / "out")
    folder = tmp_path / "out" / "uniform-d2"
    assert sorted(os.listdir(folder)) == ["config.json", TRIT]
    assert not (folder / "config.json").is_symlink()
    assert (folder / "config.json").read_text() == "{}"
    assert verify_file(folder / TRIT).ok


COMPANIONS = ["config.json", "tokenizer.json", "vocab.txt", "README.md", "1_Pooling/config.json", "a/b/c.txt"]
NOT_COPIED = [
    *(".gitattributes", ".cache/huggingface/x.json", "a/.hidden"),
    *("other.safetensors", "adapter/model.safetensors", "old.trit"),
    *("pytorch_model.bin", "x.pt", "x.pth", "x.gguf", "onnx/model.onnx", "tf_model.h5"),
]
MORE_WEIGHTS = [  # as they lie in the Hugging Face folders of all-MiniLM-L6-v2, bert-base-uncased and gpt2
    *("rust_model.ot", "flax_model.msgpack", "64.tflite", "onnx/model.onnx_data", "model.ckpt"),
    *("pytorch_model.bin.index.json", "model.safetensors.index.json"),
]


def test_companions_are_copied_and_weights_are_not(model: Path, tmp_path: Path) -> None:
    """Configuration and tokenizer come along, in sub-folders, too; hidden files and other weights do not."""
    for name in [*COMPANIONS, *NOT_COPIED]:
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).write_text(name)
    convert(model, tmp_path / "out", ["uniform-d1", "uniform-d2"])
    for config in ("uniform-d1", "uniform-d2"):
        found = tree(tmp_path / "out" / config)
        assert {name for name, data in found.items() if data is not None} == {*COMPANIONS, TRIT}
        assert all(found[name] == name.encode() for name in COMPANIONS)
        assert found.keys() - {*COMPANIONS, TRIT} == {"1_Pooling", "a", "a/b"}


@pytest.mark.parametrize("name", MORE_WEIGHTS)
def test_weights_of_other_frameworks_are_not_copied(model: Path, tmp_path: Path, name: str) -> None:
    """They are as large as the model, or list shards that are not there."""
    (model / name).parent.mkdir(exist_ok=True)
    (model / name).write_text("weights")
    convert(model, tmp_path / "out")
    assert name not in tree(tmp_path / "out" / "uniform-d2")


@posix
def test_links_of_a_folder_publish_no_file_of_its_user(model: Path, tmp_path: Path) -> None:
    """Whoever made it may have put a link to a key there; links within the folder are as good as files."""
    (tmp_path / "secret").write_text("secret")
    (model / "tokenizer.json").symlink_to(tmp_path / "secret")
    (model / "gone.txt").symlink_to(tmp_path / "nothing")
    (model / "sub").mkdir()
    (model / "sub" / "same.json").symlink_to(model / "config.json")
    convert(model, tmp_path / "out")
    packed = tmp_path / "out" / "uniform-d2"
    assert sorted(path for path, data in tree(packed).items() if data) == [
        "config.json",
        TRIT,
        "sub/same.json",
    ]
    (packed / "tokenizer.json").symlink_to(tmp_path / "secret")
    dequantize_model(packed, tmp_path / "back")
    truncate_model(packed, tmp_path / "cut", 1)
    for folder in (tmp_path / "back", tmp_path / "cut"):
        assert b"secret" not in tree(folder).values()
    assert left_out(model, [model / MODEL]) == {
        "a link to nothing": [Path("gone.txt")],
        "a link that leads out of the folder": [Path("tokenizer.json")],
    }


@posix
def test_what_is_left_out_is_known(model: Path, tmp_path: Path) -> None:
    """Weights of other models or frameworks, at any depth, what is no file, and folders that are links."""
    os.mkfifo(model / "pipe")
    (model / "linked").symlink_to(tmp_path)
    (model / "2_Dense").mkdir()
    (model / "linked.onnx").symlink_to(tmp_path)
    (model / "checkpoint.bin").mkdir()
    for name in ("2_Dense/model.safetensors", "adapter.safetensors", "pytorch_model.bin", ".hidden.bin"):
        (model / name).write_text("")
    (model / "checkpoint.bin" / "shard.bin").write_text("")
    assert left_out(model, [model / MODEL]) == {
        "weights, not of this model": [
            Path("adapter.safetensors"),
            Path("checkpoint.bin"),
            Path("linked.onnx"),
            Path("pytorch_model.bin"),
            Path("2_Dense/model.safetensors"),
        ],
        "a linked folder": [Path("linked")],
        "no file": [Path("pipe")],
    }


@posix
def test_only_regular_files_are_companions(model: Path, tmp_path: Path) -> None:
    """A named pipe would be waited for, and a linked folder may lead anywhere."""
    os.mkfifo(model / "pipe")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "secret.txt").write_text("")
    (model / "linked").symlink_to(tmp_path / "elsewhere")
    convert(model, tmp_path / "out")
    assert sorted(os.listdir(tmp_path / "out" / "uniform-d2")) == ["config.json", TRIT]


def test_an_output_within_the_source_does_not_copy_itself(model: Path) -> None:
    """The folder that is being filled is no companion."""
    convert(model, model / "out", ["uniform-d1", "uniform-d2"])
    assert sorted(os.listdir(model / "out" / "uniform-d1")) == ["config.json", TRIT]


def test_packed_models_within_the_source_are_left_out(model: Path) -> None:
    """What an earlier run has put there, and folders with the names of shards and of their index."""
    convert(model, model, ["uniform-d1"])
    for name in ("old.trit", "model.trit", "model.trit.index.json"):
        (model / name).mkdir()
        (model / name / "config.json").write_text("")
    convert(model, model, ["uniform-d2"])
    assert sorted(os.listdir(model / "uniform-d2")) == ["config.json", TRIT]


@st.composite
def models(draw: DrawFn) -> dict[str, Stored]:
    """Small models of any names, dtypes and shapes."""
    tensors = {}
    for name in draw(st.lists(names(), max_size=4, unique=True)):
        dtype = draw(st.sampled_from(sorted(filter(library_takes, RAW_DTYPES))))
        shape = tuple(draw(st.lists(st.integers(0, 7), max_size=4)))
        count = math.prod(shape) * RAW_DTYPES[dtype].itemsize
        plain = Stored(dtype, shape, bytes(i * i % 2 for i in range(count)))
        tensors[name] = weights(*shape, dtype=dtype) if dtype in FLOATS else plain
    tensors.pop("__metadata__", None)  # in safetensors no tensor
    return tensors


@settings(deadline=None, max_examples=30)
@given(model=models(), depth=st.integers(1, 4))
def test_any_model_goes_there_and_back(
    tmp_path_factory: pytest.TempPathFactory, model: dict[str, Stored], depth: int
) -> None:
    """The file is valid; raw tensors come back bit for bit, quantised ones as `quantize` has them."""
    folder = tmp_path_factory.mktemp("any")
    convert(write_model(folder / "x.safetensors", model), folder / "out", [f"uniform-d{depth}"])
    path = folder / "out" / f"uniform-d{depth}" / TRIT
    assert verify_file(path).findings == []
    dequantize_model(path, folder / "back")
    found, _ = read_safetensors(folder / "back" / MODEL)
    assert found.keys() == model.keys()
    for name, stored in load_file(path).items():
        if isinstance(stored, np.ndarray):
            assert found[name] == model[name]
        else:
            expected = quantize(values(*model[name].shape).astype(np.float32), depth)
            assert stored.levels().tobytes() == expected.levels().tobytes()
            assert found[name].data == stored.dequantize().tobytes()


# Outputs: complete, or not there


@pytest.mark.parametrize("kind", ["folder", "file", "broken link"])
def test_an_output_that_exists_is_refused_before_weights_are_read(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The last of two configs is taken: nothing is read, nothing is made, what is there stays."""
    monkeypatch.setattr(tasks, "read_rows", pytest.fail)
    taken = tmp_path / "out" / "uniform-d2"
    taken.parent.mkdir()
    if kind == "folder":
        taken.mkdir()
    elif kind == "file":
        taken.write_text("mine")
    else:
        taken.symlink_to("nowhere")
    with untouched(tmp_path), pytest.raises(TritError, match="exists already") as caught:
        convert(model, tmp_path / "out", ["uniform-d1", "uniform-d2"])
    assert caught.value.where == str(taken)


def stop(error: BaseException, at: int) -> Progress:
    """A report of progress that raises *error* at its step number *at*."""
    steps = itertools.count(1)

    def progress(_phase: str, _name: str, _weights: int, _total: int, _earlier: bool) -> None:
        if next(steps) == at:
            raise error

    return progress


ERRORS = [
    OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    PermissionError(errno.EACCES, os.strerror(errno.EACCES)),
    KeyboardInterrupt(),
    MemoryError(),
    TritError("of ours"),
    SystemExit(3),
]
SURVEY, ENCODE = 3, len(SMALL) + 3  # steps of progress: within the survey, and when the first part is encoded


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("at", [SURVEY, ENCODE])
def test_a_run_that_fails_can_go_on(model: Path, tmp_path: Path, error: BaseException, at: int) -> None:
    """Nothing has its final name, what was there stays; the same call goes on, to the same bytes."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("stays")
    with pytest.raises(type(error)):
        convert(model, tmp_path / "out", CONFIGS, progress=stop(error, at))
    assert set(os.listdir(tmp_path / "out")) <= {"mine", STATE}
    convert(model, tmp_path / "out", CONFIGS)
    convert(model, tmp_path / "undisturbed", CONFIGS)
    assert tree(tmp_path / "out") == {**tree(tmp_path / "undisturbed"), "mine": b"stays"}


@pytest.mark.parametrize("parents", ["", "new", "new/er"])
def test_an_error_of_the_source_leaves_nothing(model: Path, tmp_path: Path, parents: str) -> None:
    """What the survey finds wrong leaves no state: the source has to change, and then it would not match."""
    (tmp_path / "out").mkdir()
    with untouched(tmp_path), pytest.raises(TritError, match="of ours"):
        convert(model, tmp_path / "out" / parents, progress=stop(TritError("of ours"), SURVEY))


@pytest.mark.parametrize("function", ["fsync", "rename", "replace"])
def test_a_full_disk_loses_nothing(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    """Files cannot be completed, or do not get their names; once there is room, the run goes on.

    Where not even its fingerprint could be kept, nothing is left, and it begins anew.
    """

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    target = tmp_path / "new" / "out"
    with monkeypatch.context() as patch:
        patch.setattr(os, function, fail)
        with pytest.raises(OSError, match="No space left") as caught:
            convert(model, target, CONFIGS)
    assert STATE not in str(caught.value)
    left = os.listdir(target) if target.exists() else []
    assert left == ([STATE] if function == "rename" else [])
    convert(model, target, CONFIGS)
    convert(model, tmp_path / "undisturbed", CONFIGS)
    assert tree(target) == tree(tmp_path / "undisturbed")


@pytest.mark.parametrize("config", ["uniform-d1", "uniform-d2", "uniform-d4"])
def test_a_name_that_is_taken_meanwhile(model: Path, tmp_path: Path, config: str) -> None:
    """It is not written over; once it is moved away, the run goes on."""
    taken = tmp_path / "out" / config

    def take(*_: object) -> None:
        taken.mkdir(exist_ok=True)
        (taken / "mine").write_text("stays")

    with pytest.raises(TritError, match="came into being meanwhile") as caught:
        convert(model, tmp_path / "out", CONFIGS, progress=take)
    assert caught.value.where == str(taken)
    assert tree(taken) == {"mine": b"stays"}
    taken.rename(tmp_path / "away")
    convert(model, tmp_path / "out", CONFIGS)
    convert(model, tmp_path / "undisturbed", CONFIGS)
    assert tree(tmp_path / "out") == tree(tmp_path / "undisturbed")


@pytest.mark.parametrize("back", [dequantize_model, truncate_model])
@pytest.mark.parametrize("name", ["fsync", "copyfile"])
def test_a_failing_way_back_leaves_nothing(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, back: Callable[..., None], name: str
) -> None:
    """Neither for a full disk while companions are copied nor when the weights are completed."""

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os if name == "fsync" else shutil, name, fail)
    arguments = {} if back is dequantize_model else {"depth": 1}
    with untouched(tmp_path), pytest.raises(OSError, match="No space left"):
        back(made / "uniform-d2", tmp_path / "new" / "out", **arguments)


def test_damage_found_on_the_way_back_leaves_nothing(made: Path, tmp_path: Path) -> None:
    """The last plane of a file is damaged: the tensor is named, and no folder appears."""
    source = tmp_path / "bad"
    shutil.copytree(made / "uniform-d2", source)
    with open_file(source / TRIT) as file:
        last = file.segments[-1]
    data = bytearray((source / TRIT).read_bytes())
    data[last.end - 1] ^= 1
    (source / TRIT).write_bytes(data)
    target = tmp_path / "new" / "out"
    for back in (partial(dequantize_model, source, target), partial(truncate_model, source, target, 2)):
        with untouched(tmp_path), pytest.raises(TritError, match=r"SEG-1|PACK-") as caught:
            back()
        assert repr(last.entry.name) in caught.value.where


def test_a_target_that_exists_is_refused(made: Path, tmp_path: Path) -> None:
    """Nothing is written over a folder that is there, not even an empty one."""
    (tmp_path / "there").mkdir()
    with untouched(tmp_path):
        with pytest.raises(TritError, match="exists already"):
            dequantize_model(made / "uniform-d1", tmp_path / "there")
        with pytest.raises(TritError, match="exists already"):
            truncate_model(made / "uniform-d1", tmp_path / "there", 1)
        with pytest.raises(OSError, match="directory"):
            truncate_model(made / "uniform-d1" / TRIT, tmp_path / "there", 1)


@pytest.mark.parametrize("under", ["x", "x/y"])
def test_a_target_under_a_file(model: Path, made: Path, tmp_path: Path, under: str) -> None:
    """A path that cannot be made is an OSError that names what was asked for, with no name of ours in it."""
    (tmp_path / "file").write_text("mine")
    target = tmp_path / "file" / under
    with untouched(tmp_path):
        for back in (
            partial(convert, model, target, CONFIGS),
            partial(dequantize_model, made / "uniform-d1", target),
            partial(truncate_model, made / "uniform-d1", target, 1),
        ):
            with pytest.raises(OSError, match=r"[Nn]ot a directory|cannot find") as caught:
                back()
            assert ".partial" not in str(caught.value)
            assert STATE not in str(caught.value)


@posix
def test_a_target_that_is_read_only(model: Path) -> None:
    """No permission is an OSError that names the place, and nothing is left."""
    with tempfile.TemporaryDirectory() as name:  # tmp_path lies in folders of which others see nothing
        folder, locked = Path(name), Path(name) / "locked"
        folder.chmod(0o755)
        source = shutil.copytree(model, folder / "model")
        locked.mkdir(mode=0o555)
        with untouched(locked), unprivileged(), pytest.raises(PermissionError) as caught:
            convert(source, locked / "out")
        assert caught.value.filename == str(locked / "out")


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """Be nobody, where the process is root, who may write anywhere."""
    root = os.geteuid() == 0
    if root:
        try:
            os.seteuid(NOBODY)
        except OSError as error:
            pytest.skip(f"root of a namespace that has no other user may write anywhere: {error}")
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_a_source_that_shrinks_while_it_is_read(model: Path, tmp_path: Path) -> None:
    """A file that is cut while it is read is an error that names the tensor, not a crash; nothing is left."""
    made = job(model, ["uniform-d1"])
    os.truncate(model / MODEL, (model / MODEL).stat().st_size - 9)
    with untouched(tmp_path), pytest.raises(TritError, match="READ-4") as caught:
        quantize_model(made, tmp_path / "out", Inline())
    assert caught.value.where == f"{model / MODEL}: tensor 'model.norm.weight'"


KILLED = """
import itertools, os, signal, sys
sys.path.insert(0, sys.argv[3])
from model_helpers import convert

steps = itertools.count(1)
kill = lambda *_: os.kill(os.getpid(), signal.SIGKILL) if next(steps) == int(sys.argv[4]) else None
convert(sys.argv[1], sys.argv[2], ["uniform-d1", "uniform-d2"], progress=kill)
"""


@posix
def test_a_run_that_is_killed_goes_on(model: Path, tmp_path: Path) -> None:
    """Killed at every step in turn, it leaves nothing under the final names, and comes to the same bytes."""
    convert(model, tmp_path / "undisturbed", ["uniform-d1", "uniform-d2"])
    for at in range(1, 2 * len(SMALL)):
        command = [sys.executable, "-c", KILLED, model, tmp_path / "out", Path(__file__).parent, at]
        done = subprocess.run(list(map(str, command)), check=False)
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
        assert os.listdir(tmp_path / "out") == [STATE]
    assert tree(tmp_path / "out") == tree(tmp_path / "undisturbed")


# Plans


def test_a_plan_has_the_sizes_of_what_is_written(tmp_path: Path) -> None:
    """Each tensor's planned bytes are its segments' and codebook's in the file."""
    source_path = write_model(tmp_path / "odd.safetensors", every_dtype())
    convert(source_path, tmp_path / "out", CONFIGS)
    plans = job(source_path, CONFIGS).plans({})
    for config, planned in plans.items():
        with open_file(tmp_path / "out" / config / TRIT) as file:
            for item in planned:
                entry = file.entry(item.tensor.name)
                codebook = 0 if item.reason else 27 * 4
                assert item.stored == sum(entry.segment_sizes) + codebook
                assert item.weights == math.prod(entry.shape)


@pytest.mark.parametrize("config", ["", "uniform", "uniform-d0", "uniform-d5", "UNIFORM-D1", " uniform-d1"])
def test_an_unknown_config(config: str) -> None:
    """The error lists those that there are."""
    with pytest.raises(TritError, match=r"there are uniform-d1 to uniform-d4, sens-X .*, bpw-X"):
        config_of(config)


@pytest.mark.parametrize("group_size", [0, -1, 65_537])
def test_a_group_size_out_of_range(model: Path, group_size: int) -> None:
    """It is refused when the plan is made, before anything is written."""
    with pytest.raises(TritError, match="TEN-4"):
        job(model, ["uniform-d1"], group_size=group_size)


def test_progress_counts_every_weight_once(model: Path, tmp_path: Path) -> None:
    """The survey counts all elements, encoding those of matrices, the way back all of them."""
    expected = {name: math.prod(tensor.shape) for name, tensor in SMALL.items()}
    matrices = {name: count for name, count in expected.items() if "proj" in name}
    counts: dict[str, Counter[str]] = {"survey": Counter(), "encode": Counter()}

    def progress(phase: str, name: str, weights: int, total: int, _: bool) -> None:
        counts[phase][name] += weights
        assert total == sum((expected if phase == "survey" else matrices).values())

    convert(model, tmp_path / "out", CONFIGS, progress=progress)
    assert counts == {"survey": expected, "encode": matrices}
    back: Counter[str] = Counter()
    dequantize_model(
        tmp_path / "out" / "uniform-d1",
        tmp_path / "back",
        progress=lambda name, count: back.update({name: count}),
    )
    assert dict(back) == expected


def test_a_link_to_nothing_has_the_name_of_a_folder(tmp_path: Path) -> None:
    """It is said before anything is done."""
    (tmp_path / "a").symlink_to("nowhere")
    with pytest.raises(TritError, match="exists already"), new_folder(tmp_path / "a"):
        pytest.fail("the work was begun")
