"""Shared fixtures: toy teachers and data on disk, the program as a subprocess. Nothing here needs a network."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

# Before torch, transformers or mlflow are imported by any test: one thread a worker, no hub, no telemetry.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
os.environ.update(ENVIRONMENT)
os.environ.pop("MLFLOW_TRACKING_URI", None)  # nothing of a test is shown where the user's own runs are

import pytest  # noqa: E402

from kdexp.cli import main  # noqa: E402
from tests.warm import LIBRARIES, Server, Started, read_once  # noqa: E402

known = {*os.environ}
main.environment()
PROGRAMS = {name: None for name in os.environ if name not in known}
"""Variables that the program sets itself: in this process they are set from the start, others do it for themselves."""

REPOSITORY = Path(__file__).resolve().parent.parent
read_once(REPOSITORY / "conf")  # hundreds of tests compose the shipped files, and reading them is half of that
GOOD = ("bright", "warm", "clear", "kind", "fresh", "calm")
BAD = ("dark", "cold", "vague", "cruel", "stale", "harsh")
FILLER = ("the", "day", "was", "and", "its", "light", "felt", "so", "quite", "very")
RunProgram = Callable[..., "subprocess.CompletedProcess[str]"]


def sentence(row: int, label: int) -> str:
    """A sentence of 8 words, three of which give ``label`` away; another for every ``row``."""
    words = GOOD if label else BAD
    kept = [FILLER[(row * k + k) % len(FILLER)] for k in (1, 3, 5, 7, 9)]
    told = [words[(row + k) % len(words)] for k in (0, 1, 3)]
    return " ".join([kept[0], told[0], kept[1], kept[2], told[1], kept[3], told[2], kept[4]])


def save_backbone(model, tokenizer, folder: Path) -> Path:
    """Write ``model`` (without a head) and ``tokenizer`` to ``folder`` as the hub would serve them."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    assert (folder / "model.safetensors").is_file()
    return folder


@pytest.fixture(scope="session")
def tiny_bert_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT (4 layers, width 32, 4 heads) with a WordPiece tokenizer of 131 entries, as a folder.

    The same weights in every session. It knows the words of :func:`sentence` and spells all others.
    """
    import string

    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    signs = string.ascii_lowercase + string.digits
    entries = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *string.punctuation, *signs, *(f"##{s}" for s in signs)]
    entries += [word for word in (*GOOD, *BAD, *FILLER) if word not in entries]
    tokenizer = BertTokenizer(vocab={entry: i for i, entry in enumerate(entries)}, model_max_length=128)
    config = BertConfig(
        vocab_size=len(entries),
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=128,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = BertModel(config)
    return save_backbone(model, tokenizer, tmp_path_factory.mktemp("models") / "tiny_bert")


@pytest.fixture(scope="session")
def tiny_roberta_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random RoBERTa (4 layers, width 32, 4 heads) with a byte-level BPE tokenizer of 320 entries, as a folder."""
    import torch
    from tokenizers import ByteLevelBPETokenizer
    from transformers import RobertaConfig, RobertaModel, RobertaTokenizer

    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trained = ByteLevelBPETokenizer()
    corpus = [sentence(row, row % 2) for row in range(64)]
    trained.train_from_iterator(corpus, vocab_size=320, min_frequency=2, special_tokens=specials, show_progress=False)
    folder = tmp_path_factory.mktemp("models") / "tiny_roberta"
    folder.mkdir()
    vocab, merges = trained.save_model(str(folder))
    tokenizer = RobertaTokenizer(vocab=vocab, merges=merges, model_max_length=128)
    config = RobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=130,
        type_vocab_size=1,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = RobertaModel(config)
    return save_backbone(model, tokenizer, folder)


@pytest.fixture
def tiny_csv_task(tmp_path: Path) -> Path:
    """A folder with ``train.csv`` (64 rows) and ``validation.csv`` (32 rows), columns ``text``, ``label``, ``score``.

    ``label`` is ``good`` or ``bad``, half each, told by the words; ``score`` lies in [0, 5], above 2.5 for good.
    """
    folder = tmp_path / "tiny_csv"
    folder.mkdir()
    for name, start, rows in (("train", 0, 64), ("validation", 64, 32)):
        lines = ["text,label,score"]
        for row in range(start, start + rows):
            label = row % 2
            score = 2.5 * label + 0.5 + (row % 5) * 0.4
            lines.append(f"{sentence(row, label)},{'good' if label else 'bad'},{score:.1f}")
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


MODULES = ("kdexp.launch.preload", "kdexp.cli.errors", "kdexp.sweep.plugins", "hydra.main", "kdexp.cli.callbacks")
"""What every process of the program imports, and what that brings along; further ones take part of a second each."""


@pytest.fixture(scope="session")
def server() -> Iterator[Server | None]:
    """The process that those of the program are forked from; None on a system without what that takes."""
    if not hasattr(os, "pidfd_open"):
        yield None
        return
    running = Server(program_environment({}), MODULES)
    yield running
    running.close()


@pytest.fixture
def begin(tmp_path: Path, server: Server | None) -> Callable[..., Started | subprocess.Popen[str]]:
    """``begin(args, cwd=None, env=None, module="kdexp", cold=False, grid=False)`` starts what :func:`kdexp` runs.

    A warm process where nothing is against it: Python itself is not started anew, and libraries are imported already.
    ``cold`` asks for one from nothing; ``grid`` is as in :meth:`tests.warm.Server.start`.
    """

    def start(
        args: Sequence[str] = (),
        cwd: Path | None = None,
        env: Mapping[str, str | None] | None = None,
        module: str = "kdexp",
        cold: bool = False,
        grid: bool = False,
    ) -> Started | subprocess.Popen[str]:
        words, folder, variables = [*map(str, args)], cwd or tmp_path, program_environment(env or {})
        shipped = module.partition(".")[0] in ("kdexp", "analysis")
        if server is not None and shipped and not cold and server.fits(variables):
            return server.start(module, words, folder, variables, grid and server.fits(variables, LIBRARIES))
        return subprocess.Popen(
            [sys.executable, "-m", module, *words], cwd=folder, env=variables, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    return start


@pytest.fixture
def kdexp(begin: Callable[..., Any]) -> RunProgram:
    """``kdexp(args, cwd=None, env=None, timeout=240, module="kdexp", cold=False)`` is ``python -m kdexp *args``.

    ``cwd`` is the test's own ``tmp_path`` unless given, so nothing is written into the repository. The data root of the
    user's environment is not handed on; ``env`` adds variables, or removes those whose value is None. Returns the
    CompletedProcess with ``stdout`` and ``stderr`` as text; the exit code is the test's to judge. What still runs after
    ``timeout`` seconds is killed with all its children, and the test fails with what had been printed. ``cold`` starts
    Python anew instead of forking a warm process (:mod:`tests.warm`).
    """

    def run(
        args: Sequence[str] = (),
        cwd: Path | None = None,
        env: Mapping[str, str | None] | None = None,
        timeout: float = 240,
        module: str = "kdexp",
        cold: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", module, *map(str, args)]
        process = begin(args, cwd, env, module, cold, grid=True)
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException as stopped:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            if isinstance(stopped, subprocess.TimeoutExpired):
                pytest.fail(f"{' '.join(command)} ran past {timeout} s\n--- stdout\n{out}\n--- stderr\n{err}")
            raise
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    return run


def program_environment(changes: Mapping[str, str | None]) -> dict[str, str]:
    """The environment of a subprocess: this one, the repository importable from any folder, then ``changes``."""
    merged: dict[str, str | None] = {**os.environ, **PROGRAMS, **ENVIRONMENT}
    merged |= {"KDEXP_DATA": None, "NO_COLOR": "1", "COLUMNS": "160"}
    merged["PYTHONPATH"] = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    merged.update(changes)
    return {name: value for name, value in merged.items() if value is not None}


@pytest.fixture
def compose(registered: None) -> Callable[..., Any]:
    """``compose(*overrides)`` composes a configuration in this process, as the command line does."""
    from hydra import compose, initialize_config_dir

    main.resolvers()

    def make(*overrides: str) -> Any:
        with initialize_config_dir(main.CONFIG_PATH, version_base="1.3"):
            return compose("config", overrides=list(overrides))

    return make


@pytest.fixture
def registered() -> None:
    """Register kdexp's plugins in this process."""
    from kdexp.sweep import plugins

    plugins.register()


@pytest.fixture
def data_root() -> Path:
    """The folder named by KDEXP_DATA, which holds ``glue/<task>/*.parquet``; without it the test is skipped."""
    root = os.environ.get("KDEXP_DATA")
    if not root:
        pytest.skip("needs local data: KDEXP_DATA is not set")
    if not Path(root).is_dir():
        pytest.fail(f"KDEXP_DATA={root} is not a folder")
    return Path(root).resolve()
