"""Images: decoded once, checked, cropped and mirrored by (seed, epoch, example id) alone; what is refused."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from kdexp.tasks.base import DataContext, Relabelled, Subset
from kdexp.tasks.images import augment
from kdexp.tasks.images.classification import Images, ImageTask
from kdexp.tasks.images.pixels import Pictures
from tests import pictures

LABEL = "label"


def task(folder: Path, **more) -> ImageTask:
    given = {"columns": ["image"], "label_names": list(pictures.CLASSES), "folder": str(folder), **more}
    return ImageTask("toys", **given)


def context(cache: Path, **more) -> DataContext:
    given = {"model": "nowhere", "options": {}, "heldout": 0.25, "cache": cache, "say": lambda line: None} | more
    return DataContext(**{"vocab_size": None, "positions": None, "max_length": 128, "root": None, **given})


@pytest.fixture
def folder(tmp_path) -> Path:
    return pictures.write(tmp_path / "toys", 24, 9)


def images(n: int = 40, **more) -> Images:
    values = np.stack([pictures.picture(row, row % 3, 8) for row in range(n)])
    rows = Pictures(values, np.arange(n) % 3, np.arange(n))
    return Images(rows, [0.5, 0.4, 0.3], [0.2, 0.3, 0.4], **more)


# --- crops and mirroring ---------------------------------------------------------------------------------------------


def test_draws_are_a_function_of_seed_epoch_and_id():
    ids = np.arange(500)
    one = augment.draws(3, 7, ids, 3)
    assert np.array_equal(one[[9, 4, 400]], augment.draws(3, 7, np.array([9, 4, 400]), 3))
    for seed, epoch in ((4, 7), (3, 8), (7, 3)):
        assert not (augment.draws(seed, epoch, ids, 3) == one).any()
    assert len(np.unique(one)) == one.size


def test_every_place_and_both_directions_come_equally_often():
    numbers = augment.draws(1, 0, np.arange(81_000), 3)
    for column in (0, 1):
        counts = np.bincount((numbers[:, column] % np.uint64(9)).astype(int), minlength=9)
        assert abs(counts - 9000).max() < 5 * 9000**0.5
    mirrored = (numbers[:, 2] >> np.uint64(63)).astype(int)
    assert abs(mirrored.sum() - 40_500) < 5 * 142
    both = np.corrcoef(np.stack([(numbers[:, c] % np.uint64(9)).astype(float) for c in (0, 1)] + [mirrored]))
    assert abs(both - np.eye(3)).max() < 0.02
    following = np.corrcoef(mirrored[1:], mirrored[:-1])[0, 1]
    epochs = np.corrcoef(mirrored, (augment.draws(1, 1, np.arange(81_000), 3)[:, 2] >> np.uint64(63)).astype(int))
    assert abs(following) < 0.02 and abs(epochs[0, 1]) < 0.02


def test_crops_by_hand():
    whole = np.arange(1, 13, dtype=np.uint8).reshape(1, 2, 2, 3)
    places = [(0, 0, 0), (1, 1, 0), (2, 1, 0), (1, 1, 1 << 63)]
    cut = [
        augment.augmented(whole, np.array([place], dtype=np.uint64), 1, True)[0, ..., 0].tolist() for place in places
    ]
    assert cut == [[[0, 0], [0, 1]], [[1, 4], [7, 10]], [[7, 10], [0, 0]], [[4, 1], [10, 7]]]


def test_a_batch_depends_neither_on_its_order_nor_on_its_size():
    data = images(pad=2, flip=True).in_epoch(5, 3)
    whole = data.collate(np.arange(40)).inputs["pixel_values"]
    assert torch.equal(data.collate(np.array([7, 31])).inputs["pixel_values"], whole[[7, 31]])
    assert torch.equal(data.collate(np.array([7]), step_seed=123).inputs["pixel_values"], whole[[7]])
    for other in ((5, 4), (6, 3)):
        again = images(pad=2, flip=True).in_epoch(*other).collate(np.arange(40)).inputs["pixel_values"]
        assert not torch.equal(again, whole)
    plain = images(pad=2, flip=True).collate(np.arange(40), step_seed=1)
    assert torch.equal(plain.inputs["pixel_values"], images().collate(np.arange(40)).inputs["pixel_values"])
    assert plain.mask is None and plain.labels[LABEL].tolist() == [i % 3 for i in range(40)]


def test_parts_of_a_split_draw_what_the_whole_draws():
    whole, rows = images(pad=2, flip=True), np.array([30, 2, 11])
    drawn = whole.in_epoch(1, 1).collate(rows).inputs["pixel_values"]
    for part in (Subset(whole, rows), Relabelled(Subset(whole, rows), {LABEL: np.zeros(3)})):
        assert not part.fixed
        assert torch.equal(part.in_epoch(1, 1).collate(np.arange(3)).inputs["pixel_values"], drawn)


def test_normalisation_is_what_it_says():
    data = images()
    values = torch.from_numpy(data.pictures.pixels[:5]).permute(0, 3, 1, 2).double() / 255
    mean, std = (torch.tensor(x, dtype=torch.float64)[:, None, None] for x in (data.mean, data.std))
    expected = (values - mean) / std
    torch.testing.assert_close(data.collate(np.arange(5)).inputs["pixel_values"], expected.float(), rtol=0, atol=1e-6)


# --- files -----------------------------------------------------------------------------------------------------------


def test_splits_of_a_parquet_file(folder, tmp_path):
    splits = task(folder, pad=1).datasets(context(tmp_path / "cache"))
    assert {name: len(split) for name, split in splits.items()} == {"train": 18, "heldout": 6, "validation": 9}
    assert [splits[name].fixed for name in ("train", "heldout", "validation")] == [False, True, True]
    assert np.bincount(splits["heldout"].targets[LABEL]).tolist() == [2, 2, 2]
    assert np.array_equal(splits["validation"].pictures.pixels[3], pictures.picture(1003, 0))


def test_the_same_images_in_folders_or_a_table_are_the_same_data(folder, tmp_path):
    classes, listed = tmp_path / "classes", tmp_path / "listed"
    listed.mkdir()
    for name, start, rows in (("train", 0, 24), ("validation", 1000, 9)):
        lines = ["image,label"]
        for row in range(rows):
            content = pictures.png(pictures.picture(start + row, row % 3))
            below = classes / name / pictures.CLASSES[row % 3]
            below.mkdir(parents=True, exist_ok=True)
            (below / f"{row:03d}.png").write_bytes(content)
            (listed / f"{name}{row}.png").write_bytes(content)
            lines.append(f"{name}{row}.png,{pictures.CLASSES[row % 3]}")
        (listed / f"{name}.csv").write_text("\n".join(lines))
    table = task(folder)
    csv = task(listed, files={"train": "train.csv", "validation": "validation.csv"})
    assert csv.problems(None) == [] and csv.fingerprint(None) == table.fingerprint(None)
    tree = task(classes)
    assert tree.problems(None) == [] and tree.unusable(context(tmp_path / "none")) == []
    rows = tree.rows(None, None)["train"]
    assert [(name, int(n)) for name, n in zip(pictures.CLASSES, np.bincount(rows.labels), strict=True)] == [
        (name, 8) for name in pictures.CLASSES
    ]
    assert np.array_equal(rows.pixels[8], pictures.picture(1, 1))  # sorted by class, then by file
    (classes / "train" / "red" / "000.png").write_bytes(pictures.png(pictures.picture(77, 0)))
    assert tree.fingerprint(None, tmp_path / "cache") != table.fingerprint(None)


def test_decoded_once_checked_and_made_anew(folder, tmp_path, monkeypatch, caplog):
    from kdexp.tasks.images import pixels

    calls = []
    decode = pixels.decode
    monkeypatch.setattr(pixels, "decode", lambda *given: calls.append(1) or decode(*given))
    cache = tmp_path / "cache"
    first = task(folder).datasets(context(cache))["train"]
    assert len(calls) == 2 and isinstance(first.pictures.pixels, np.memmap)
    expected = first.collate(np.arange(9)).inputs["pixel_values"]
    assert task(folder).datasets(context(cache)) and len(calls) == 2
    (entry,) = {Path(first.facts["pixels"])}
    damaged = bytearray((entry / "pixels.npy").read_bytes())
    damaged[-100] ^= 1
    (entry / "pixels.npy").write_bytes(damaged)
    with caplog.at_level(logging.WARNING):
        again = task(folder).datasets(context(cache))["train"]
    assert "is damaged (pixels.npy is not what was written) and is made anew" in caplog.text and len(calls) == 3
    assert torch.equal(again.collate(np.arange(9)).inputs["pixel_values"], expected)


def test_other_sizes_are_scaled_and_counted(folder, tmp_path):
    said: list[str] = []
    small = task(folder, size=16)
    splits = small.datasets(context(tmp_path / "cache", say=said.append))
    assert splits["train"].collate(np.arange(2)).inputs["pixel_values"].shape == (2, 3, 16, 16)
    assert splits["validation"].facts["resized"] == 9
    assert "9 images of the file of validation were scaled to 16 x 16 pixels" in said
    assert small.fingerprint(None) != task(folder).fingerprint(None)


def test_a_preprocessor_does_what_the_task_does(folder, tmp_path):
    transformers = pytest.importorskip("transformers")
    chosen = task(folder, mean=[0.5, 0.4, 0.3], std=[0.2, 0.3, 0.4])
    chosen.save_preprocessor(context(tmp_path), tmp_path)
    from PIL import Image

    made = transformers.AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    value = made(Image.fromarray(pictures.picture(1003, 0)), return_tensors="pt")["pixel_values"]
    ours = chosen.datasets(context(tmp_path / "cache"))["validation"].collate(np.array([3])).inputs["pixel_values"]
    torch.testing.assert_close(value, ours, rtol=0, atol=1e-5)


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"columns": ["image", "other"]}, "name one image column"),
        (
            {"kind": "regression", "label_names": [], "metrics": ["pearson"], "metric": "pearson"},
            "images are classified",
        ),
        ({"label_names": ["red"]}, "name at least two classes"),
    ],
)
def test_settings_that_do_not_fit(folder, more, said):
    with pytest.raises(ValueError, match=said):
        task(folder, **more)


def test_files_that_do_not_fit_are_named(folder, tmp_path):
    wrong, _ = task(folder, columns=["img"]).problems(None)
    assert "train.parquet has no column img (it has image, label): change task.columns" in wrong
    assert "this is missing" in task(tmp_path / "nowhere").problems(None)[0]
    import pyarrow as pa
    from pyarrow import parquet

    cells = [{"bytes": b"no image at all", "path": None}] * 4
    parquet.write_table(pa.table({"image": cells, "label": [0, 1, 2, 0]}), folder / "train.parquet")
    (wrong,) = task(folder).unusable(context(tmp_path / "cache"))
    assert "train.parquet, column image, row 0: this image cannot be read (no image of a known format)" in wrong
    with pytest.raises(ValueError, match="row 0: this image cannot be read"):
        task(folder).datasets(context(tmp_path / "cache"))
    parquet.write_table(pa.table({"image": [1, 2], "label": [0, 1]}), folder / "train.parquet")
    assert "is no image, nor the path of one" in task(folder).unusable(context(tmp_path / "cache"))[0]
    parquet.write_table(pa.table({"image": [b"x"], "label": [7]}), folder / "train.parquet")
    assert "label 7 is neither one of" in task(folder).unusable(context(tmp_path / "cache"))[0]


def test_one_class_and_strange_folders(folder, tmp_path):
    for name in ("train", "validation"):
        (tmp_path / "classes" / name / "red").mkdir(parents=True)
        (tmp_path / "classes" / name / "red" / "a.png").write_bytes(pictures.png(pictures.picture(0, 0)))
    tree = task(tmp_path / "classes")
    assert "nothing can be learned from one class" in tree.unusable(context(tmp_path / "cache"))[0]
    (tmp_path / "classes" / "train" / "purple").mkdir()
    (tmp_path / "classes" / "train" / "purple" / "b.png").write_bytes(b"")
    assert "a folder purple, which is none of the classes" in tree.unusable(context(tmp_path / "cache"))[0]


def test_images_are_not_predicted(folder, tmp_path):
    with pytest.raises(ValueError, match="has images, and predictions are written for texts only"):
        task(folder).unseen(context(tmp_path), "validation")


def test_a_teacher_that_has_seen_other_images_is_refused(folder, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"image_size": 224}))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.1] * 3, "image_std": [0.5] * 3}))
    seen = context(tmp_path / "cache", model=str(tmp_path), options={"local_files_only": True})
    size, mean = task(folder).unusable(seen)
    assert "task.size=32" in size and "image_size=224: say task.size=224" in size
    assert "say task.mean=[0.1, 0.1, 0.1]" in mean


# --- CIFAR -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_is_read_as_it_is(name, compose, data_root, tmp_path):
    """Rows, classes, and the normalisation that the configuration states: that of the training images."""
    from kdexp.common.registry import build
    from kdexp.config.resolve import resolve

    if not (data_root / name).is_dir():
        pytest.skip(f"needs {name} below KDEXP_DATA")
    chosen = build(resolve(compose(f"task={name}", "task.limit_train=5000"))["task"])
    assert chosen.problems(str(data_root)) == [] and chosen.unusable(context(tmp_path, root=str(data_root))) == []
    from kdexp.tasks.images import pixels

    labels, cells = pixels.contents(data_root / name / "train.parquet", "img", chosen.label, chosen.label_names)
    assert np.bincount(labels).tolist() == [50_000 // len(chosen.label_names)] * len(chosen.label_names)
    room = np.empty((2000, 32, 32, 3), dtype=np.uint8)
    assert pixels.decode(cells[:2000], room) == 0
    values = room.reshape(-1, 3) / 255
    np.testing.assert_allclose(values.mean(0), chosen.mean, atol=0.01)
    np.testing.assert_allclose(values.std(0), chosen.std, atol=0.01)


def test_a_report_shows_the_images_that_were_scored(folder, tmp_path):
    """Of a part of validation too, whose examples count from 0 while the pixels on disk are all of them."""
    from analysis.pictures import scored

    for limit in (None, 4, 100):
        data = task(folder, limit_validation=limit).datasets(context(tmp_path / "cache"))["validation"]
        said = {"task": {"pixel_rows": {"validation": data.facts.get("pixel_rows")}}}
        assert scored(said, len(data.pictures.pixels)).tolist() == data.pictures.rows.tolist()
        assert len(data) == (limit if limit == 4 else 9) and ("pixel_rows" in data.facts) == (limit == 4)
