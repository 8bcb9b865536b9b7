"""Embedding distillation: texts without labels; students as folders of sentence-transformers, read without kdexp."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.stats import spearmanr

from kdexp.common.problems import ConfigError
from kdexp.heads.similarities import beside, cosines
from kdexp.methods.embeddings import components
from kdexp.objectives.embedding import COMPONENTS, Embedding
from kdexp.objectives.similarities import Similarities, similarity_margins
from kdexp.run import execute, spec
from kdexp.tasks.text.cutting import sentences
from tests.conftest import BAD, FILLER, GOOD
from tests.test_runs import toy

NARROW = ["student.hidden_size=16", "student.num_heads=2", "student.intermediate_size=24"]


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> Path:
    """Documents of four sentences each, and pairs that are the more alike the more words they share."""
    folder, rng = tmp_path_factory.mktemp("texts"), np.random.default_rng(0)
    words = [*GOOD, *BAD, *FILLER]
    for name, documents in (("train", 40), ("validation", 10)):
        made = [[f"{' '.join(rng.choice(words, 7)).capitalize()}." for _ in range(4)] for _ in range(documents)]
        (folder / f"{name}.txt").write_text("\n\n".join(" ".join(["A heading", *one]) for one in made))
    for name, rows in (("train", 8), ("validation", 24)):
        lines = ["one,two,score"]
        for row in range(rows):
            first, second, shared = [*rng.choice(words, 7)], [*rng.choice(words, 7)], row % 6
            lines.append(f"{' '.join(first)},{' '.join(first[:shared] + second[shared:])},{shared}")
        (folder / f"pairs_{name}.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def prepared(tmp_path, monkeypatch, texts, tiny_bert_dir, compose):
    from kdexp.cli import main

    monkeypatch.chdir(tmp_path)
    main.environment()

    def one(*overrides: str) -> spec.RunSpec:
        given = [
            "teacher=local", f"teacher.source=path:{tiny_bert_dir}", "teacher.name=tiny", "teacher.floor_margin=-1",
            "student=l2", "runtime.device=cpu", "runtime.dtype=fp32", "tracking=off", "task=embeddings",
            "objective=embeddings", f"task.folder={texts}", "task.hub=null", "task.limit_train=150", "task.longest=90",
            f"task.pairs.folder={texts}", "task.pairs.columns=[one,two]", "task.pairs.label=score",
            "task.pairs.files={train: pairs_train.csv, validation: pairs_validation.csv}", "task.pairs.hub=null",
            "task.pairs.partial=null", "recipe.batch_size=16", "recipe.max_length=32", "recipe.learning_rate=3e-3",
            "recipe.epochs=2", "runtime.keep_weights=final",
        ]  # fmt: skip
        return spec.make(compose(*given, *overrides))

    return one


def read_back(folder: Path, texts: list[str]) -> np.ndarray:
    """What a folder of sentence-transformers says of some texts, by its own files and transformers alone."""
    from transformers import AutoModel, AutoTokenizer

    modules = [json.loads((folder / "modules.json").read_text())][0]
    assert [module["path"].partition("_")[0] for module in modules[1:]] == [str(n + 1) for n in range(len(modules) - 1)]
    length = json.loads((folder / "sentence_bert_config.json").read_text())["max_seq_length"]
    reader, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    inputs = reader(texts, padding=True, truncation=True, max_length=length, return_tensors="pt")
    with torch.no_grad():
        vectors = model(**inputs).last_hidden_state
    for module in modules[1:]:
        settings = folder / module["path"] / "config.json"
        match module["type"].rpartition(".")[2]:
            case "Pooling":
                pooling = json.loads(settings.read_text())
                assert pooling["pooling_mode_mean_tokens"] and not pooling["pooling_mode_cls_token"]
                assert pooling["word_embedding_dimension"] == vectors.shape[-1]
                sizes = inputs["attention_mask"].sum(1)
                vectors = torch.stack([row[:size].mean(0) for row, size in zip(vectors, sizes, strict=True)])
            case "Dense":
                weights, dense = load_file(settings.parent / "model.safetensors"), json.loads(settings.read_text())
                assert (dense["in_features"], dense["out_features"]) == tuple(weights["linear.weight"].shape[::-1])
                vectors = vectors @ weights["linear.weight"].T + weights["linear.bias"]
            case "Normalize":
                vectors = vectors / vectors.norm(dim=1, keepdim=True)
    return vectors.numpy()


def test_a_narrow_student_is_a_folder_of_sentence_transformers(prepared, texts):
    """With a map to the teacher's width; the scores are those of what the folder says, read without kdexp."""
    run = prepared(*NARROW, "init=importance")
    result = execute.execute(run)
    assert [stage["name"] for stage in result["stages"]] == ["teacher", "embeddings"]
    assert result["teacher"]["scores"]["heldout"] == pytest.approx({"agreement": 1, "cosine": 1})
    assert result["task"]["rows"] == {"train": 135, "heldout": 15, "validation": 48}
    assert result["task"]["scored"]["validation"] == 24 and result["best"]["scores"].keys() == {"agreement", "cosine"}
    folder = Path(result["student"]["weights"])
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == ["1_Pooling", "2_Dense", "predictions"]

    rows = [line.split(",") for line in (texts / "pairs_validation.csv").read_text().splitlines()[1:]]
    said = read_back(folder, [text for row in rows for text in row[:2]])
    assert said.shape == (48, 32)
    similarity = (said[::2] * said[1::2]).sum(1)
    kept = load_file(folder / "predictions" / "validation.safetensors")["logits"][:, 0].float().numpy()
    np.testing.assert_allclose(similarity, kept, atol=1e-3 if kept.dtype == np.float16 else 5e-4)
    scores = result["scores"]["validation"]
    assert scores["spearman"] == pytest.approx(spearmanr(similarity, [float(row[2]) for row in rows])[0], abs=5e-3)

    from kdexp.models import build as models
    from kdexp.tasks.text.encoding import encode
    from kdexp.tasks.text.rows import Rows
    from kdexp.tasks.text.tokenizer import load

    model = models.restore(folder, run_task(run).head)
    flat = [text for row in rows for text in row[:2]]
    batch = encode(load(folder), Rows(flat, None, np.zeros(len(flat))), 32).collate(np.arange(len(flat)))
    with torch.no_grad():
        ours = model(**batch.inputs).embedding.numpy()
    np.testing.assert_allclose(said, ours, atol=1e-6)

    package = pytest.importorskip("sentence_transformers")
    theirs = package.SentenceTransformer(str(folder), device="cpu").encode(flat)
    np.testing.assert_allclose(theirs, ours, atol=1e-6)


def run_task(run: spec.RunSpec):
    from kdexp.common.registry import build

    return build(run.config.task)


def test_a_student_that_is_its_teacher_agrees_with_it(prepared):
    """All layers, copied, and no step that matters: the measures are 1 for the teacher's own vectors only."""
    same = execute.execute(
        prepared("student.num_layers=4", "init=first", "recipe.steps=1", "recipe.learning_rate=1e-9")
    )
    other = execute.execute(prepared("init=random", "recipe.steps=1", "recipe.learning_rate=1e-9"))
    for split in ("heldout", "validation"):
        assert same["scores"][split]["cosine"] == pytest.approx(1, abs=1e-5)
        assert same["scores"][split]["agreement"] == pytest.approx(1, abs=1e-3)
        assert other["scores"][split]["cosine"] < 0.9 and other["scores"][split]["agreement"] < 0.9
    assert same["scores"]["validation"]["spearman"] == pytest.approx(
        same["teacher"]["scores"]["validation"]["spearman"], abs=1e-3
    )
    assert same["stages"][0]["key"] == other["stages"][0]["key"] and other["stages"][0]["reused"]


def test_vectors_cut_by_principal_components_are_learned(prepared):
    """Joint with a term on hidden states, and scores within the batch; the student answers as wide as it is."""
    words = [*NARROW, "init=random", "task.projection=pca", "objective=embeddings_scores", "objective.schedule=joint"]
    hidden = "+objective/intermediate=hid_seq"
    begun = execute.execute(prepared(*words, hidden, "recipe.steps=1", "recipe.learning_rate=1e-9"))
    done = execute.execute(prepared(*words, hidden, "recipe.epochs=12"))
    assert done["scores"]["heldout"]["cosine"] > begun["scores"]["heldout"]["cosine"] + 0.1
    folder = Path(done["student"]["weights"])
    assert not (folder / "2_Dense").exists() and read_back(folder, ["so bright."]).shape == (1, 16)


def test_components_are_the_directions_of_most_variance(tmp_path):
    rng = np.random.default_rng(0)
    spread = np.diag([5.0, 3.0, 0.5, 0.1]) @ np.linalg.qr(rng.normal(size=(4, 4)))[0]
    vectors = (rng.normal(size=(500, 4)) @ spread + 7).astype(np.float32)
    found = components(vectors)
    reference = np.linalg.svd(vectors - vectors.mean(0))[2]
    np.testing.assert_allclose(np.abs((found * reference).sum(1)), 1, atol=1e-4)
    assert (components(vectors[::-1]) * found).sum(1).min() > 0.999
    with pytest.raises(ValueError, match="at least 4 training texts"):
        components(vectors[:3])

    (tmp_path / "teacher").mkdir()
    save_file({"components": torch.from_numpy(found).contiguous()}, tmp_path / "teacher" / COMPONENTS)
    objective = Embedding("mse")
    objective.head = type("Head", (), {"normalize": False})()
    objective.inherit({"teacher": tmp_path / "teacher"})
    cut = torch.from_numpy(vectors[:8] @ found[:2].T)
    both = {"embedding": cut}, {"embedding": torch.from_numpy(vectors[:8])}
    assert float(objective(*both, None)) == pytest.approx(0, abs=1e-10)


def test_similarities_are_cosines():
    rng = np.random.default_rng(1)
    one, other = rng.normal(size=(2, 6, 3))
    one[2] = 0
    expected = [
        float(a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-9)) for a, b in zip(one, other, strict=True)
    ]
    np.testing.assert_allclose(cosines(one, other), expected, atol=1e-12)
    assert beside(other)[1].tolist() == pytest.approx([cosines(other[1:2], other[j : j + 1])[0] for j in (2, 4)])


def test_margins_are_those_to_whom_the_teacher_finds_most_alike():
    torch.manual_seed(0)
    ours, theirs = torch.randn(5, 3, dtype=torch.float64, requires_grad=True), torch.randn(5, 4, dtype=torch.float64)
    alike = [torch.nn.functional.cosine_similarity(x[:, None], x[None], dim=-1) for x in (ours, theirs)]
    gaps = []
    for query in range(5):
        others = [text for text in range(5) if text != query]
        positive = max(others, key=lambda text: float(alike[1][query, text]))
        margins = [[s[query, positive] - s[query, text] for text in others if text != positive] for s in alike]
        gaps += [(a - b) ** 2 for a, b in zip(*margins, strict=True)]
    found = similarity_margins(ours, theirs)
    torch.testing.assert_close(found, torch.stack(gaps).mean())
    assert float(similarity_margins(theirs, theirs)) == 0
    few = similarity_margins(ours[:2], theirs[:2])
    few.backward()
    assert float(few.detach()) == 0 and torch.isfinite(ours.grad).all()
    with pytest.raises(ValueError, match="temperature=0.1 has no effect with similarities.form=margin"):
        Similarities("margin", 0.1)


def test_sentences_are_cut_at_marks_before_capitals():
    text = (
        "History\nDr. Smith met J. R. Hill in Rome. He left at 5 p.m. the next day! Was it e.g. a quarrel?\n"
        'no mark here\nIt was (they say). "Yes." 1999 was later.\nIn the U.S. Army he served.'
    )
    assert list(sentences(text, 8, 60)) == [
        "Dr. Smith met J. R. Hill in Rome.", "He left at 5 p.m. the next day!", "Was it e.g. a quarrel?",
        "It was (they say).", "1999 was later.", "In the U.S. Army he served.",
    ]  # fmt: skip
    assert list(sentences(text, 8, 20)) == ["It was (they say).", "1999 was later."]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["objective=kd"], r"objective=kd \(method distill\) cannot train the head embedding"),
        (["objective=kd", "objective.method=embeddings"], "objective.prediction.kd reads labels or classes"),
        (["objective.start=fine_tuned"], "objective.start=fine_tuned"),
        (["init=ptp"], "init=ptp has a stage that learns by labels"),
        (["task.metric=spearman"], "selection=heldout with task.metric=spearman"),
        (["task.projection=pca"], "nothing is cut"),
        (["task.pairs.columns=[one]"], "two text columns and scores"),
        (["task.pairs.label=nothing"], "has no column nothing .* change task.pairs.label"),
        (["task.pairs=null"], "metric spearman does not exist here"),
        (["task.longest=5"], "task.shortest=20 is above task.longest=5"),
        (["task.cut=texts"], "task.per_document=20 has no effect with task.cut=texts"),
        (["task.column=nothing", "task.files.train=pairs_train.csv"], "has no column nothing"),
        (["task.shortest=80"], "0 text"),
        (["objective=embeddings_scores", "recipe.accumulation=2"], "depends on who is in a batch together"),
    ],
    ids=str,
)
def test_what_cannot_work_is_said_before_anything_is_loaded(prepared, words, told):
    with pytest.raises(ConfigError, match=told):
        prepared(*words)
    assert not Path("multirun").exists()


def test_another_task_has_no_vectors(compose, tiny_bert_dir, tiny_csv_task):
    with pytest.raises(ConfigError, match=r"method=embeddings needs one vector an example, .* head classification"):
        spec.make(compose(*toy(tiny_bert_dir, tiny_csv_task), "objective=embeddings"))


def test_a_teacher_is_pooled_as_its_folder_says(prepared, tiny_bert_dir, tmp_path):
    import shutil

    copy = shutil.copytree(tiny_bert_dir, tmp_path / "embedder")
    (copy / "1_Pooling").mkdir()
    (copy / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    prepared(f"teacher.source=path:{copy}", "task.pool=cls")
    (copy / "modules.json").write_text(json.dumps([{"type": "sentence_transformers.models.Dense"}]))
    with pytest.raises(ConfigError, match=r"(?s)task.pool=mean, but .* says cls.*names Dense, which is not read"):
        prepared(f"teacher.source=path:{copy}")


@pytest.mark.parametrize("family", ["Roberta", "DistilBert", "Electra", "ModernBert"])
def test_encoders_of_other_families_become_embedders(family, tmp_path):
    """A saved one is read by AutoModel as it is, whatever its family calls its parts."""
    import transformers

    from kdexp.models.embedder import AutoEmbedder
    from kdexp.tasks.text.embedder_folder import write

    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24, "num_hidden_layers": 2}
    if family == "DistilBert":
        sizes = {"dim": 16, "n_heads": 2, "hidden_dim": 24, "n_layers": 2}
    small = {"vocab_size": 40, "max_position_embeddings": 32, "pad_token_id": 0, **sizes}
    config = getattr(transformers, f"{family}Config")(
        **small, **({"embedding_size": 16} if family == "Electra" else {})
    )
    config.embedding_pool, config.embedding_normalize, config.embedding_out = "mean", True, 24
    torch.manual_seed(0)
    model = AutoEmbedder.from_config(config).eval()
    model.save_pretrained(tmp_path)
    write(tmp_path, 32)
    ids, mask = torch.arange(1, 13).reshape(2, 6), torch.tensor([[1] * 6, [1] * 4 + [0] * 2])
    encoder = transformers.AutoModel.from_pretrained(tmp_path).eval()
    dense = load_file(tmp_path / "2_Dense" / "model.safetensors")
    with torch.no_grad():
        said = model(input_ids=ids * mask, attention_mask=mask).embedding
        hidden = encoder(input_ids=ids * mask, attention_mask=mask).last_hidden_state
    pooled = torch.stack([hidden[0].mean(0), hidden[1, :4].mean(0)]) @ dense["linear.weight"].T + dense["linear.bias"]
    torch.testing.assert_close(said, torch.nn.functional.normalize(pooled), atol=1e-6, rtol=1e-5)
    assert said.shape == (2, 24)
