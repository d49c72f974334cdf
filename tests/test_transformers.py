"""What `dequantize` writes loads in stock transformers, and computes what the dequantised weights compute.

python -m pip install '.[test,transformers]' && pytest -m transformers
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from model_helpers import MINILM, MODEL, convert

import tritcodec as tc
from tritcodec.model.export import dequantize_model, truncate_model

pytestmark = [
    pytest.mark.transformers,
    pytest.mark.filterwarnings("default"),  # torch and transformers warn of what they will change
]
SHARD_SIZE = "20KB"
INDEX = f"{MODEL}.index.json"


@pytest.fixture(scope="module")
def torch() -> ModuleType:
    """The module, untyped here: it takes mypy longer than all the rest."""
    return importlib.import_module("torch")


@pytest.fixture(scope="module")
def transformers() -> ModuleType:
    """The module, which looks for nothing on the network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        return importlib.import_module("transformers")


@pytest.fixture(scope="module", params=[False, True], ids=["untied", "tied"])
def qwen(
    request: pytest.FixtureRequest, torch: Any, transformers: Any, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A tiny Qwen2 of random bfloat16 weights in several shards, as save_pretrained writes it."""
    config = transformers.Qwen2Config(
        vocab_size=96,
        hidden_size=40,
        intermediate_size=72,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=request.param,
    )
    torch.manual_seed(11)
    folder = tmp_path_factory.mktemp("qwen")
    transformers.Qwen2ForCausalLM(config).to(torch.bfloat16).save_pretrained(
        folder, max_shard_size=SHARD_SIZE
    )
    names = json.loads((folder / INDEX).read_bytes())["weight_map"]
    assert ("lm_head.weight" in names) != request.param
    assert len(set(names.values())) > 2
    return folder


def quantized(source: Path, target: Path, depth: int) -> Path:
    """*source* through the pipeline: a `.trit` for each file, in a model folder."""
    folder = convert(source, target, [f"uniform-d{depth}"]) / f"uniform-d{depth}"
    assert tc.verify_model(folder).ok
    return folder


def replaced(torch: Any, model: Any, folder: Path, depth: int | None, dtype: str | None) -> Any:
    """*model* with the weights of a `.trit` folder put into it, tensor by tensor, without any file."""
    state = model.state_dict()
    with tc.open_model(folder) as opened, torch.no_grad():
        for name in opened.keys():  # noqa: SIM118  # no mapping
            tensor = opened.get_tensor(name, depth)
            array = tensor.dequantize(dtype) if isinstance(tensor, tc.TritTensor) else tensor
            if name in state:  # some checkpoints hold buffers that today's models have not
                state[name].copy_(torch.from_numpy(array.astype(np.float32)).reshape(array.shape))
    return model


def assert_equal(torch: Any, first: Any, second: Any, tokens: Any) -> Any:
    """Two models have the same parameters, bit for bit, and the same outputs; gives these."""
    others = dict(second.named_parameters())
    for name, parameter in first.named_parameters():
        assert parameter.dtype == others[name].dtype, name
        assert torch.equal(parameter, others[name]), name
    assert first.state_dict().keys() == second.state_dict().keys()
    with torch.no_grad():
        outputs = [model.eval()(tokens)[0] for model in (first, second)]
    assert torch.isfinite(outputs[0]).all()
    assert torch.equal(*outputs)
    return outputs[0]


@pytest.mark.parametrize(
    ("depth", "cut", "dtype"),
    [(2, None, None), (3, 1, None), (4, None, "F32")],
    ids=["d2", "d3 as d1", "F32"],
)
def test_a_sharded_qwen2(
    torch: Any, transformers: Any, qwen: Path, tmp_path: Path, depth: int, cut: int | None, dtype: str | None
) -> None:
    """Quantised, dequantised and loaded, a model computes what it does with the weights put in by hand."""
    packed = quantized(qwen, tmp_path / "packed", depth)
    dequantize_model(packed, tmp_path / "restored", dtype=dtype, depth=cut)
    assert {path.name for path in (tmp_path / "restored").iterdir()} == {path.name for path in qwen.iterdir()}
    load = transformers.AutoModelForCausalLM.from_pretrained
    kind = torch.float32 if dtype else torch.bfloat16
    restored, info = load(tmp_path / "restored", output_loading_info=True)
    assert restored.dtype == kind
    assert not any(info[what] for what in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    by_hand = replaced(torch, load(qwen, dtype=kind), packed, cut, dtype)
    tokens = torch.arange(48).reshape(2, 24) * 7 % 96
    outputs = assert_equal(torch, restored, by_hand, tokens)
    with torch.no_grad():
        before = load(qwen, dtype=kind).eval()(tokens)[0]
    assert not torch.equal(outputs, before)  # quantising did something


def test_a_truncated_folder(torch: Any, transformers: Any, qwen: Path, tmp_path: Path) -> None:
    """Cut and dequantised, a folder loads as what is dequantised to the depth."""
    packed = quantized(qwen, tmp_path / "packed", 3)
    truncate_model(packed, tmp_path / "cut", 1)
    dequantize_model(tmp_path / "cut", tmp_path / "restored")
    load = transformers.AutoModelForCausalLM.from_pretrained
    by_hand = replaced(torch, load(qwen), packed, 1, None)
    assert_equal(torch, load(tmp_path / "restored"), by_hand, torch.arange(20)[None])


def test_minilm(torch: Any, transformers: Any, tmp_path: Path) -> None:
    """One layer of a real model, a file without an index, in float16."""
    packed = quantized(MINILM, tmp_path / "packed", 2)
    dequantize_model(packed, tmp_path / "restored")

    def load(folder: Path) -> Any:
        return transformers.BertModel.from_pretrained(folder, add_pooling_layer=False)

    by_hand = replaced(torch, load(MINILM), packed, None, None)
    assert next(by_hand.parameters()).dtype == torch.float16
    outputs = assert_equal(torch, load(tmp_path / "restored"), by_hand, torch.arange(64).reshape(2, 32) * 5)
    with torch.no_grad():
        before = load(MINILM).eval()(torch.arange(64).reshape(2, 32) * 5)[0]
    cosine = torch.nn.functional.cosine_similarity(outputs.float(), before.float(), dim=-1)
    assert 0.9 < cosine.mean() < 1  # near, and not the same
