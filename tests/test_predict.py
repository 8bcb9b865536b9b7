"""``python -m kdexp predict``: files that leaderboards take, of all nine GLUE tasks and of SQuAD; what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from kdexp.cli import commands
from tests.conftest import sentence
from tests.tasks import squads
from tests.test_runs import toy

TASKS = {
    "cola": ("test", ["sentence"], "CoLA.tsv", ["0", "1"]),
    "sst2": ("test", ["sentence"], "SST-2.tsv", ["0", "1"]),
    "mrpc": ("test", ["sentence1", "sentence2"], "MRPC.tsv", ["0", "1"]),
    "qqp": ("test", ["question1", "question2"], "QQP.tsv", ["0", "1"]),
    "stsb": ("test", ["sentence1", "sentence2"], "STS-B.tsv", []),
    "mnli": ("test_mismatched", ["premise", "hypothesis"], "MNLI-mm.tsv", ["entailment", "neutral", "contradiction"]),
    "qnli": ("test", ["question", "sentence"], "QNLI.tsv", ["entailment", "not_entailment"]),
    "rte": ("test", ["sentence1", "sentence2"], "RTE.tsv", ["entailment", "not_entailment"]),
    "wnli": ("test", ["sentence1", "sentence2"], "WNLI.tsv", ["0", "1"]),
}


def classifier(source: Path, folder: Path, outputs: int) -> Path:
    """A classifier with random weights and its tokenizer, as transformers saves it."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_pretrained(source, num_labels=outputs)
        torch.nn.init.normal_(model.classifier.weight, std=2.0)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("task", TASKS)
def test_glue_as_its_leaderboard_takes_it(task, tiny_bert_dir, tmp_path, capsys):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    split, columns, file, words = TASKS[task]
    rows = {name: [sentence(row + 7 * i, row % 2) for row in range(20)] for i, name in enumerate(columns)}
    place = tmp_path / "data" / "glue" / task
    place.mkdir(parents=True)
    pq.write_table(pa.table({**rows, "label": [-1] * 20}), place / f"{split}.parquet")
    folder = classifier(tiny_bert_dir, tmp_path / "model", len(words) + (task == "stsb"))
    (tmp_path / "out").mkdir()
    request = ["predict", str(folder), f"task={task}", f"split={split}", f"root={tmp_path / 'data'}"]
    assert commands.main([*request, f"out={tmp_path / 'out'}", "json=true"]) == 0, capsys.readouterr().err
    said = json.loads(capsys.readouterr().out)
    assert said == {"file": str(tmp_path / "out" / file), "task": task, "split": split, "rows": None, "form": "pytorch"}
    lines = (tmp_path / "out" / file).read_text().splitlines()
    assert lines[0] == "index\tprediction" and [line.split("\t")[0] for line in lines[1:]] == [*map(str, range(20))]

    model, reader = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        logits = model(**reader(*rows.values(), padding=True, return_tensors="pt")).logits
    given = [line.split("\t")[1] for line in lines[1:]]
    if task == "stsb":
        assert [float(score) for score in given] == pytest.approx(logits[:, 0].clamp(0, 5).tolist(), abs=1e-3)
    else:
        assert given == [words[i] for i in logits.argmax(1).tolist()]
    assert commands.main([*request, f"out={tmp_path / 'out'}"]) == 2 and "is there already" in capsys.readouterr().err


@pytest.mark.parametrize("out", ["a.tsv", "a.csv"])
def test_texts_may_stand_in_columns_of_other_names(out, tiny_bert_dir, tmp_path, capsys):
    """The file of other names, in another order, gets the answers of the file as the task has it."""
    texts = [[sentence(row + 7 * i, row % 2) for row in range(20)] for i in range(2)]
    folder = classifier(tiny_bert_dir, tmp_path / "model", 2)
    own, other = tmp_path / "own.parquet", tmp_path / "other.parquet"
    pq.write_table(pa.table({"sentence1": texts[0], "sentence2": texts[1]}), own)
    pq.write_table(pa.table({"claim": texts[1], "body": texts[0]}), other)
    told = []
    for file, words in ((own, []), (other, ["columns=body,claim"])):
        target = tmp_path / f"{file.stem}.{out}"
        request = ["predict", str(folder), "task=rte", f"data={file}", f"out={target}", *words]
        assert commands.main(request) == 0, capsys.readouterr().err
        told.append([line.rsplit(",", 3)[-3:] if out == "a.csv" else line for line in target.read_text().splitlines()])
    assert told[0] == told[1] and len({str(line) for line in told[0][1:]}) > 1


def test_a_runs_student_on_new_questions(kdexp, tiny_bert_dir, tiny_csv_task, tmp_path):
    words = [w for w in toy(tiny_bert_dir, tiny_csv_task) if not w.startswith("task")]
    place = squads.folder(tmp_path / "squad", words=30)
    done = kdexp([*words, *squads.words(place), "objective=finetune", "runtime.keep_weights=final"])
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "multirun" / "adhoc").glob("toy-*")
    rows = [json.loads(line) for line in (place / "validation.jsonl").read_text().splitlines()]
    new = tmp_path / "new.jsonl"
    new.write_text("\n".join(json.dumps({k: v for k, v in row.items() if k != "answers"}) for row in rows))
    done = kdexp(["predict", str(run), f"data={new}", "out=new.json"])
    assert done.returncode == 0, done.stderr
    kept = json.loads((run / "predictions" / "validation.json").read_text())
    assert json.loads((tmp_path / "new.json").read_text()) == kept, "the run's own answers, from the text alone"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["task=rte", "split=tset"], "no split tset in .*glue/rte.* \\(there is test\\), and the hub is switched off"),
        (["task=rt"], r"task=rt is unknown\. Did you mean rte\?"),
        (["task=squad"], r"model=.* has no weights of what task=squad asks \(qa_outputs"),
        (["task=mnli"], "has 2 outputs .* task=mnli needs 3"),
        ([], "task= is needed, as the model is no run"),
        (["task=rte", "data=gone.csv"], "data=gone.csv is no file"),
        (["task=rte", "root=gone"], "root=gone is no folder"),
        (["task=pydocs_match"], "task=pydocs_match has no rows beside its own"),
        (["task=rte", "max_length=2"], "max_length='2' is below 8"),
        (["task=rte", "device=gpu"], "gpu"),
        (["task=rte", "columns=body"], "columns= names 1, and task=rte reads 2: sentence1, sentence2"),
        (["task=rte", "columns=a,"], "columns='a,' has an empty name"),
        (["task=rte", "columns=body,body"], "columns='body,body' names a column twice"),
        (["task=rte", "columns=body,other"], "body"),
        (["task=squad", "columns=body"], "columns= has no effect with task=squad, whose columns have fixed names"),
    ],
)
def test_what_cannot_be_predicted_is_said(words, message, tiny_bert_dir, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "data" / "glue" / "rte"
    place.mkdir(parents=True)
    pq.write_table(pa.table({"sentence1": ["the day"], "sentence2": ["was"]}), place / "test.parquet")
    folder = classifier(tiny_bert_dir, tmp_path / "model", 2)
    root = [] if any(word.startswith("root") for word in words) else [f"root={tmp_path / 'data'}"]
    code, err = commands.main(["predict", str(folder), "out=a.tsv", *root, *words]), capsys.readouterr().err
    assert code == 2 and "Traceback" not in err and not (tmp_path / "a.tsv").exists()
    assert re.search(message, err), err
