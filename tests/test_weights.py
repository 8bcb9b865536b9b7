"""Weight files and configurations of other people: each damage is one sentence, found before anything is loaded."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kdexp.models import config_json, source, weights
from kdexp.run import spec
from tests.hub.checkpoints import write
from tests.test_runs import toy

SAFE = "model.safetensors"
POINTER = (
    b"version https://git-lfs.github.com/spec/v1\noid sha256:68d45e234eb4a928074dfd868cead0219ab85354\nsize 440449768\n"
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model of the hub, as it lies there."""
    return write("bert_l2_h128", tmp_path_factory.mktemp("weights") / "whole").folder


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in three files."""
    return write("bert_l2_h128", tmp_path_factory.mktemp("weights") / "shards", shards=3).folder


@pytest.fixture
def copied(tmp_path: Path) -> Callable[[Path], Path]:
    """Copy a folder, to be spoilt."""
    return lambda folder: Path(shutil.copytree(folder, tmp_path / "spoilt"))


def header(path: Path) -> tuple[dict[str, Any], bytes]:
    """A file's header, and the numbers after it."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def framed(said: Any, numbers: bytes = b"") -> bytes:
    text = said if isinstance(said, bytes) else json.dumps(said).encode()
    return len(text).to_bytes(8, "little") + text + numbers


def rewritten(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    said, numbers = header(path)
    change(said)
    path.write_bytes(framed(said, numbers))


def entry(**values: Any) -> dict[str, Any]:
    return {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **values}}


DAMAGES: dict[str, tuple[bytes | Callable[[bytes], bytes], str]] = {
    "a pointer": (POINTER, "is a pointer of git-lfs, not the weights themselves: run `git lfs pull` in"),
    "empty": (b"", "is empty"),
    "some bytes": (b"\x08\0\0", "is cut short (3 bytes)"),
    "half a header": (lambda content: content[:500], "is cut short (500 bytes, and its header alone has"),
    "half its numbers": (lambda content: content[: len(content) // 2], "is cut short"),
    "one byte less": (lambda content: content[:-1], "is cut short"),
    "bytes after its end": (lambda content: content + b"\0" * 8, "overlap, or leave bytes over"),
    "junk": (b"\xfe\xff" * 64, "is no safetensors file"),
    "a web page": (b"<!DOCTYPE html><html>404</html>", "is no safetensors file"),
    "a zip": (b"PK\x03\x04" + b"\0\0\x08\x08" * 8, "is no safetensors file"),
    "a header beyond all memory": ((2**63).to_bytes(8, "little") + b"{}", "a header of 9223372036854775808 bytes"),
    "no JSON": (framed(b'{"a": '), "its JSON cannot be read"),
    "JSON without end": (framed(b"[" * 100_000), "its JSON cannot be read"),
    "a list": (framed([1]), "its JSON cannot be read"),
    "no weights": (framed({}), "holds no weights"),
    "only a note": (framed({"__metadata__": {"format": "pt"}}), "holds no weights"),
    "absurd shape": (framed(entry(shape=[10**12, 10**12]), b"\0" * 8), "shape and size of 'a' differ"),
    "absurd offsets": (framed(entry(shape=[2**60], data_offsets=[0, 2**62]), b"\0" * 8), "is cut short (8 bytes of"),
    "negative shape": (framed(entry(shape=[-1, -2]), b"\0" * 8), "shape and size of 'a' differ"),
    "shape of truths": (framed(entry(shape=[True, 2]), b"\0" * 8), "shape and size of 'a' differ"),
    "unknown numbers": (framed(entry(dtype="F7"), b"\0" * 8), "what it says of 'a' cannot be read"),
    "three offsets": (framed(entry(data_offsets=[0, 4, 8]), b"\0" * 8), "what it says of 'a' cannot be read"),
    "text for an entry": (framed({"a": "F32"}), "what it says of 'a' cannot be read"),
    "overlap": (framed(entry() | {"b": entry()["a"]}, b"\0" * 8), "overlap, or leave bytes over"),
    "gap": (framed(entry(data_offsets=[8, 16]), b"\0" * 16), "overlap, or leave bytes over"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_file_is_one_sentence(name: str, whole: Path, copied: Callable[[Path], Path]):
    damage, sentence = DAMAGES[name]
    path = copied(whole) / SAFE
    path.write_bytes(damage(path.read_bytes()) if callable(damage) else damage)
    (said,) = weights.problems(path.parent)
    assert sentence in said and str(path) in said and ("again" in said or "git lfs pull" in said)
    assert weights.shapes(path.parent) is None


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_shard_is_named(name: str, shards: Path, copied: Callable[[Path], Path]):
    damage, sentence = DAMAGES[name]
    path = copied(shards) / "model-00002-of-00003.safetensors"
    path.write_bytes(damage(path.read_bytes()) if callable(damage) else damage)
    (said,) = weights.problems(path.parent)
    assert sentence in said and str(path) in said


def index(**changes: Any) -> Callable[[dict[str, Any]], dict[str, Any] | list[Any]]:
    return lambda said: {key: value for key, value in {**said, **changes}.items() if value is not None}


def placed(where: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Say that the first weight is in another file."""

    def change(said: dict[str, Any]) -> dict[str, Any]:
        first = next(iter(said["weight_map"]))
        return {**said, "weight_map": {**said["weight_map"], first: where}}

    return change


INDICES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "no map": (index(weight_map=None), "is no index of weights"),
    "empty map": (index(weight_map={}), "is no index of weights"),
    "map of numbers": (index(weight_map={"a": 1}), "is no index of weights"),
    "no metadata": (index(metadata=None), "is no index of weights"),
    "a list": (lambda said: [said], "its JSON cannot be read"),
    "a missing shard": (placed("model-00004-of-00003.safetensors"), "model-00004-of-00003.safetensors is not there"),
    "a shard above": (placed("../outside.safetensors"), "outside its folder"),
    "a shard anywhere": (placed("/etc/outside.safetensors"), "outside its folder"),
    "a shard below": (placed("more/model.safetensors"), "outside its folder"),
    "a pickled shard": (placed("pytorch_model-00001-of-00003.bin"), "can hold code and are never loaded"),
    "another shard": (placed("model-00003-of-00003.safetensors"), "has the weight"),
}  # fmt: skip


@pytest.mark.parametrize("name", INDICES)
def test_an_index_names_what_is_there(name: str, shards: Path, copied: Callable[[Path], Path]):
    change, sentence = INDICES[name]
    path = copied(shards) / "model.safetensors.index.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    shutil.copy(path.parent / "model-00001-of-00003.safetensors", path.parent.parent / "outside.safetensors")
    (path.parent / "pytorch_model-00001-of-00003.bin").write_bytes(b"\x80")
    (said,) = weights.problems(path.parent)
    assert sentence in said and str(path.parent) in said


def test_links_and_devices(whole: Path, copied: Callable[[Path], Path], tmp_path: Path):
    folder = copied(whole)
    path, outside = folder / SAFE, tmp_path / "elsewhere.safetensors"
    path.rename(outside)
    refused = {"/dev/zero": "no plain file but a device", "nowhere": "leads nowhere"}
    refused[str(outside)] = "outside its folder"
    for goal, sentence in refused.items():
        path.symlink_to(goal)
        (said,) = weights.problems(folder)
        assert sentence in said, said
        if goal == str(outside):  # the advice works
            os.system(said.partition("(")[2].partition(")")[0])
            assert weights.problems(folder) == [] and not path.is_symlink()
        path.unlink()
    os.mkfifo(path)
    assert "no plain file but a pipe" in weights.problems(folder)[0]
    path.unlink()
    path.mkdir()
    assert "no plain file but a folder" in weights.problems(folder)[0]
    path.rmdir()
    (folder / "renamed.safetensors").write_bytes(outside.read_bytes())
    path.symlink_to("renamed.safetensors")
    assert weights.problems(folder) == []


def test_the_hubs_cache_and_a_link_to_a_folder_are_read(whole: Path, tmp_path: Path):
    snapshot, blobs = tmp_path / "models--a--b" / "snapshots" / ("0" * 40), tmp_path / "models--a--b" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, path in enumerate(sorted(whole.iterdir())):
        shutil.copy(path, blobs / str(number))
        (snapshot / path.name).symlink_to(f"../../blobs/{number}")
    (tmp_path / "latest").symlink_to(snapshot)
    for folder in (snapshot, tmp_path / "latest"):
        assert weights.problems(folder) == [] and weights.shapes(folder) == weights.shapes(whole)


def test_whole_files_pass_and_name_their_weights(whole: Path, shards: Path):
    assert weights.problems(whole) == weights.problems(shards) == []
    names = weights.read(whole)
    assert names == weights.read(shards) and names["bert.pooler.dense.weight"] == (8, 8)


def test_the_checksum_of_several_files_is_that_of_all_of_them(
    whole: Path, shards: Path, copied: Callable[[Path], Path]
):
    assert weights.checksum(whole) == hashlib.sha256((whole / SAFE).read_bytes()).hexdigest()
    every = b"".join(path.read_bytes() for path in sorted(shards.glob("*.safetensors")))
    sha256 = hashlib.sha256(every).hexdigest()
    folder = copied(shards)
    before = source.origin(f"path:{folder}", None, sha256)
    for path in sorted(folder.glob("*.safetensors")):
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(ValueError, match="they are not the expected ones"):
            source.origin(f"path:{folder}", None, sha256)
        assert source.origin(f"path:{folder}", None, None) != before
        path.write_bytes(content)


CONFIGURATIONS: dict[str, tuple[Any, str]] = {
    "model_type": (None, 'has no model_type, so its architecture is unknown: add "model_type": "bert"'),
    "model_type ": ("bertt", "model_type='bertt', which transformers does not know"),
    "num_hidden_layers": (10**9, "num_hidden_layers=1000000000: a whole number from 1 to"),
    "num_hidden_layers ": (3, "num_hidden_layers=3, but its weights have 2 layers"),
    "num_hidden_layers  ": (1, "num_hidden_layers=1, but its weights have 2 layers"),
    "num_hidden_layers   ": ("two", "num_hidden_layers='two': a whole number"),
    "num_attention_heads": (0, "num_attention_heads=0: a whole number from 1"),
    "num_attention_heads ": (3, "hidden_size=8 is not a multiple of teacher.num_heads=3"),
    "hidden_size": (1024, "hidden_size=1024, but none of its weights has that many rows or columns"),
    "hidden_size ": (8.0, "hidden_size=8.0: a whole number"),
    "intermediate_size": (10**7, "intermediate_size=10000000, but none of its weights"),
    "vocab_size": (99_999_999, "vocab_size=99999999, but the table of its weights has"),
    "vocab_size ": (True, "vocab_size=True: a whole number"),
    "max_position_embeddings": ("many", "max_position_embeddings='many': a whole number"),
    "max_position_embeddings ": (-1, "max_position_embeddings=-1: a whole number"),
    "max_position_embeddings  ": (10**15, "max_position_embeddings=1000000000000000: a whole number"),
    "max_position_embeddings   ": (256, "max_position_embeddings=256, but the table of its weights has 512 rows"),
    "type_vocab_size": (7, "type_vocab_size=7, but the table of its weights has 2 rows"),
    "pad_token_id": ("none", "pad_token_id='none': a whole number"),
    "pad_token_id ": (10**6, "pad_token_id=1000000: a whole number from 0 to"),
    "is_decoder": (True, "is_decoder=True: must be false"),
    "return_dict": (False, "return_dict=False: true is needed"),
    "chunk_size_feed_forward": (3, "chunk_size_feed_forward=3: 0 is needed"),
    "output_attentions": (True, "output_attentions=True: false is needed"),
    "_attn_implementation": ("kernels-community/evil", "no repository is named here: its code would run"),
    "attn_implementation": ("owner/kernel:x", "no repository is named here: its code would run"),
    "hidden_act": ("gellu", "hidden_act='gellu': an activation"),
    "hidden_act ": (7, "hidden_act=7: an activation"),
    "hidden_dropout_prob": (1.5, "hidden_dropout_prob=1.5: a share"),
    "layer_norm_eps": (-1, "layer_norm_eps=-1: a number above 0"),
    "initializer_range": ("x", "initializer_range='x': a number above 0"),
    "id2label": ({"zero": "bad"}, "id2label={'zero': 'bad'}: a name for each output"),
    "id2label ": ({"0": "bad", "7": "good"}, "id2label="),
    "id2label  ": (["bad", "good"], "id2label=['bad', 'good']: a name for each"),
    "id2label   ": ({"0": {"a": 1}, "1": None}, "id2label="),
    "num_labels": ("2", "num_labels='2': a whole number"),
}


@pytest.mark.parametrize("key", CONFIGURATIONS)
def test_a_nonsense_configuration_is_refused_in_the_check(
    key: str, whole: Path, copied: Callable[[Path], Path], tiny_csv_task: Path, compose: Callable[..., Any]
):
    value, sentence = CONFIGURATIONS[key]
    folder = copied(whole)
    said = json.loads((folder / "config.json").read_text()) | {key.strip(): value}
    (folder / "config.json").write_text(json.dumps({k: v for k, v in said.items() if v is not None}))
    ready, problems = spec.prepare(compose(*toy(folder, tiny_csv_task)))
    assert ready is None and any(sentence in problem for problem in problems), problems
    assert config_json.problems(whole) == []


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '{"model_max_length": "x"}', '{"model_max_length": []}'])
def test_a_nonsense_tokenizer_configuration_is_a_sentence(
    text: str, whole: Path, copied: Callable[[Path], Path], tiny_csv_task: Path, compose: Callable[..., Any]
):
    folder = copied(whole)
    (folder / "tokenizer_config.json").write_text(text)
    ready, problems = spec.prepare(compose(*toy(folder, tiny_csv_task)))
    assert ready is None and any("tokenizer" in problem for problem in problems), problems


def test_a_damaged_teacher_ends_the_command_before_anything_is_written(
    kdexp: Callable[..., Any], whole: Path, copied: Callable[[Path], Path], tiny_csv_task: Path, tmp_path: Path
):
    folder = copied(whole)
    (folder / SAFE).write_bytes(POINTER)
    done = kdexp([*toy(folder, tiny_csv_task), "init.source=pretrained", "init.pooler=true"])
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.startswith("One thing must change") and "git lfs pull" in done.stderr
    assert not (tmp_path / "multirun").exists()


def test_what_only_loading_tells_is_a_sentence_too(
    kdexp: Callable[..., Any], whole: Path, copied: Callable[[Path], Path], tiny_csv_task: Path
):
    folder = copied(whole)
    said = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps({**said, "quantization_config": {"quant_method": "gptq", "bits": 4}})
    )
    done = kdexp(toy(folder, tiny_csv_task))
    assert done.returncode == 1 and "Traceback" not in done.stderr + done.stdout
    assert re.search(r"failed: .*teacher=tiny: path:\S+ cannot be loaded \(", done.stderr), done.stderr
