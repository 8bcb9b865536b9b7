"""Small vocabularies in the file forms that real checkpoints have: WordPiece, byte-level BPE, SentencePiece.

Each knows the words of the tests' sentences and spells all other ASCII text, so that none of it becomes the unknown
token. ``size`` fills a vocabulary up to the real one's size with entries that no text uses, as real ones have them.
"""

from __future__ import annotations

import json
import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.conftest import BAD, FILLER, GOOD

COMMON = (
    "a an of to in is that for on with as by are this be or not from it at if which return returns value object string "
    "list type given name method class function file set used default true false none all each new code data number"
).split()
WORDS = tuple(dict.fromkeys((*GOOD, *BAD, *FILLER, *COMMON)))
Files = dict[str, bytes]


@dataclass(frozen=True)
class Vocabulary:
    """The entries of a tokenizer and the files that hold them.

    Attributes:
        ids: entry -> id.
        files: name -> content of the files that only this form of a tokenizer has.
        fast: content of ``tokenizer.json``.
    """

    ids: dict[str, int]
    files: Files
    fast: bytes

    @property
    def size(self) -> int:
        """Rows that an embedding table needs."""
        return max(self.ids.values()) + 1


def as_json(value: Any, indent: int | None = None) -> bytes:
    """JSON as the libraries write it."""
    return json.dumps(value, ensure_ascii=False, indent=indent).encode()


def wordpiece(size: int | None = None) -> Vocabulary:
    """BERT's uncased form: the special entries at 0 and 100 to 103, unused ones between, the rest from 104 on."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from tokenizers.decoders import WordPiece

    signs = [*string.punctuation, *string.digits, *string.ascii_lowercase]
    entries = ["[PAD]", *(f"[unused{i}]" for i in range(99)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    entries += signs + [word for word in WORDS if word not in signs] + [f"##{sign}" for sign in signs[32:]]
    entries = _filled(entries, size, "[unused{}]", 99)
    ids = {entry: i for i, entry in enumerate(entries)}
    fast = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    fast.add_special_tokens([entry for entry in entries[:104] if not entry.startswith("[unused")])
    fast.normalizer = normalizers.BertNormalizer(lowercase=True)
    fast.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    fast.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, ids[name]) for name in ("[CLS]", "[SEP]")],
    )  # fmt: skip
    fast.decoder = WordPiece(cleanup=True)
    return Vocabulary(ids, {"vocab.txt": ("\n".join(entries) + "\n").encode()}, fast.to_str().encode())


def _filled(entries: Sequence[str], size: int | None, name: str, first: int) -> list[str]:
    """Append entries up to a size."""
    return [*entries, *(name.format(first + i) for i in range(max(0, (size or 0) - len(entries))))]


def _bytes_and_merges() -> tuple[list[str], list[tuple[str, str]]]:
    """The letters of byte-level BPE, and merges that spell each word (with the blank before it) from left to right."""
    from tokenizers.pre_tokenizers import ByteLevel

    letters = sorted(ByteLevel.alphabet())
    merges: dict[tuple[str, str], None] = {}
    for word in WORDS:
        whole = "Ġ" + word
        merges |= dict.fromkeys((whole[:i], whole[i]) for i in range(1, len(whole)))
    return letters, list(merges)


def _byte_tokenizer(ids: dict[str, int], merges: list[tuple[str, str]], blank_first: bool) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    fast = Tokenizer(models.BPE(ids, merges))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=blank_first)
    fast.decoder = decoders.ByteLevel()
    return fast


def _byte_files(ids: dict[str, int], merges: list[tuple[str, str]]) -> Files:
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    return {"vocab.json": as_json(ids), "merges.txt": ("\n".join(lines) + "\n").encode()}


def roberta(size: int | None = None) -> Vocabulary:
    """RoBERTa's form: four special entries first, the mask last, a doubled separator between two texts."""
    from tokenizers import AddedToken, processors

    letters, merges = _bytes_and_merges()
    entries = ["<s>", "<pad>", "</s>", "<unk>", *letters, *("".join(pair) for pair in merges)]
    entries = [*_filled(entries, size and size - 1, "madeupword{:04d}", 0), "<mask>"]
    ids = {entry: i for i, entry in enumerate(entries)}
    fast = _byte_tokenizer(ids, merges, blank_first=False)
    fast.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", AddedToken("<mask>", lstrip=True)])
    fast.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), True, False)
    return Vocabulary(ids, _byte_files(ids, merges), fast.to_str().encode())


def gpt2(size: int | None = None) -> Vocabulary:
    """GPT-2's form: letters, merges, and one special entry at the end; nothing to pad with."""
    from tokenizers import processors

    letters, merges = _bytes_and_merges()
    entries = _filled([*letters, *("".join(pair) for pair in merges)], size and size - 1, "unused{}", 0)
    ids = {entry: i for i, entry in enumerate([*entries, "<|endoftext|>"])}
    fast = _byte_tokenizer(ids, merges, blank_first=False)
    fast.add_special_tokens(["<|endoftext|>"])
    fast.post_processor = processors.ByteLevel(trim_offsets=False)
    return Vocabulary(ids, _byte_files(ids, merges), fast.to_str().encode())


def modernbert(size: int | None = None) -> Vocabulary:
    """ModernBERT's form: byte-level BPE in ``tokenizer.json`` only, BERT's special entries after all others."""
    from tokenizers import AddedToken, normalizers, processors

    letters, merges = _bytes_and_merges()
    specials = ["|||EMAIL_ADDRESS|||", "<|endoftext|>", "[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
    unused = [f"[unused{i}]" for i in range(3)]
    entries = ["<|padding|>", *letters, *("".join(pair) for pair in merges)]
    entries = _filled(entries, size and size - len(specials) - len(unused), "unused{}", 0)
    ids = {entry: i for i, entry in enumerate([*entries, *specials, *unused])}
    fast = _byte_tokenizer({entry: ids[entry] for entry in entries}, merges, blank_first=False)
    fast.normalizer = normalizers.NFC()
    fast.add_special_tokens([AddedToken(name, lstrip=name == "[MASK]") for name in specials])
    fast.add_tokens(unused)
    fast.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[(name, ids[name]) for name in ("[CLS]", "[SEP]")],
    )  # fmt: skip
    told = {"added_tokens_decoder": {str(ids[n]): _added(n, n in specials) for n in [*specials, *unused]}}
    told |= {f"{n[1:-1].lower()}_token": n for n in specials if n.startswith("[")}
    told |= {"model_input_names": ["input_ids", "attention_mask"], "model_max_length": 8192}
    files = {"tokenizer_config.json": as_json({**told, "tokenizer_class": "PreTrainedTokenizerFast"}, 2)}
    return Vocabulary(ids, files, fast.to_str().encode())


def _added(name: str, special: bool) -> dict[str, Any]:
    kind = {"lstrip": name == "[MASK]", "normalized": False, "rstrip": False, "single_word": False}
    return {"content": name, **kind, "special": special}


def sentencepiece(size: int | None = None) -> Vocabulary:
    """DeBERTa-v3's form: a SentencePiece unigram model, with the mask as an entry that only the library adds.

    The model file is in the format of sentencepiece's ``ModelProto``, written by hand: pieces are field 1 (text 1,
    score 2, kind 3), the trainer's settings field 2 (kind 3, vocabulary 4, ids from 40 on), the normaliser's field 3.
    """
    pieces = [("[PAD]", 0.0, 3), ("[CLS]", 0.0, 3), ("[SEP]", 0.0, 3), ("[UNK]", 0.0, 2)]
    pieces += [("▁" + word, -4.0 - 0.01 * i, 1) for i, word in enumerate(WORDS)]
    pieces += [(sign, -9.0, 1) for sign in ("▁", *string.ascii_letters, *string.digits, *string.punctuation)]
    names = _filled([piece[0] for piece in pieces], size and size - 100, "▁unused{}", 0)
    pieces += [(name, -20.0, 1) for name in names[len(pieces) :]]
    model = b"".join(_field(1, _text(1, p) + _float(2, score) + _int(3, kind)) for p, score, kind in pieces)
    trainer = _int(3, 1) + _int(4, len(pieces)) + _int(40, 3) + _int(41, 1) + _int(42, 2) + _int(43, 0)
    normaliser = _text(1, "nmt_nfkc") + _int(3, 1) + _int(4, 1) + _int(5, 1)
    ids = {piece[0]: i for i, piece in enumerate(pieces)}
    ids["[MASK]"] = len(ids)
    return Vocabulary(ids, {"spm.model": model + _field(2, trainer) + _field(3, normaliser)}, b"")


def _number(value: int) -> bytes:
    """An integer in the variable-length form of protocol buffers."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _int(field: int, value: int) -> bytes:
    return _number(field << 3) + _number(value)


def _float(field: int, value: float) -> bytes:
    import struct

    return _number(field << 3 | 5) + struct.pack("<f", value)


def _field(field: int, content: bytes) -> bytes:
    return _number(field << 3 | 2) + _number(len(content)) + content


def _text(field: int, value: str) -> bytes:
    return _field(field, value.encode())
