"""What belongs to each shipped study, stated before its runs: its claims, the primary ones, its table, its delta."""

from __future__ import annotations

from dataclasses import dataclass

PRIMARY = 4  # claims a study at the most: more of them, and none could be decided


@dataclass(frozen=True)
class Study:
    """What belongs to a study, stated before its runs.

    Attributes:
        purpose: one sentence for the command's help.
        claims: beginnings of the claims' ids that it prints; the report prints all that have runs.
        primary: ids of the claims that it is run for: at most four, corrected together. The others are exploratory.
        layout: shape of its table, see ``analysis.tables``.
        delta: points within which an effect is too small to matter, in the full form and in smaller ones.
        silent: what its smaller form does not say, in one or two sentences.
    """

    purpose: str
    claims: tuple[str, ...] = ()
    primary: tuple[str, ...] = ()
    layout: str = "grid"
    delta: tuple[float, float] = (1.0, 1.5)
    silent: str = ""

    def __post_init__(self) -> None:
        if len(self.primary) > PRIMARY:
            raise ValueError(
                f"{len(self.primary)} primary claims ({', '.join(self.primary)}); at most {PRIMARY} a study"
            )


HOWTO = ("howto", "distilling", "intermediate")
AGNOSTIC = (
    "One student a stage, so that seeds are those of the fine-tuning alone: whether another run of the stage would say "
    "the same is not asked. A stage is 2,000 updates of 8 short sequences here, 100,000 of 1,024 in the paper."
)
STUDIES = {
    "agnostic_init": Study(
        "How to Distill your BERT, Table 4: on raw text, from random weights or from the teacher's lowest layers.",
        ("agnostic",),
        (
            "agnostic.stage_helps.random",
            "agnostic.stage_helps.first",
            "agnostic.att_mse_over_hid_seq.random",
            "agnostic.first_over_random.att_mse",
        ),
        silent=AGNOSTIC,
    ),
    "agnostic_objectives": Study(
        "How to Distill your BERT, Table 2: what a student of random weights should match on raw text.",
        ("agnostic",),
        ("agnostic.att_mse_over_hid_seq.random", "agnostic.att_mse_over_hid_cls.random"),
        silent=AGNOSTIC,
    ),
    "capacity_gap": Study(
        "Capacity gap: a small student of teachers of several depths, of an assistant, and along checkpoints.",
        ("capacity", "distilling"),
        (
            "capacity.half_as_deep_over_deepest",
            "capacity.assistant_over_kd",
            "capacity.pro_kd_gains_more_from_deeper",
            "distilling_helps",
        ),
        "methods",
        silent=(
            "The deepest teacher has 6 layers and 23 million parameters; the gaps of the literature are between "
            "networks of 110 and 8 layers, or 24 and 6. Teachers of fewer layers are cut from the same model, not "
            "pretrained."
        ),
    ),
    "checkpoint_search": Study(
        "Checkpoint search: which checkpoint of the teacher's fine-tuning is best to learn from, by students' sizes.",
        ("checkpoint",),
        (
            "checkpoint.early_over_last",
            "checkpoint.middle_over_last",
            "checkpoint.late_over_last",
            "checkpoint.smaller_students_want_earlier_ones",
        ),
        "methods",
        silent=(
            "The checkpoints are those after each of 4 epochs of one fine-tuning; which one a search by score would "
            "have picked is another question, and a teacher that is trained for longer may go on to overfit."
        ),
    ),
    "init_ablation": Study(
        "How to Distill your BERT, Table 3: objectives by the teacher layers that a 3-layer student starts from.",
        HOWTO,
        (
            "howto.kd.first_over_spread.qnli",
            "howto.kd.first_over_spread.all",
            "howto.att_kl_steadier_than_kd",
            "howto.att_kl_over_kd.spread",
        ),
        silent=(
            "The paper starts from RoBERTa-base with 12 layers and picks 1, 8 and 12 or every 4th; a teacher of 6 "
            "layers cannot ask for these choices, only for low layers against spread ones. Neither claim was "
            "tested with more than 2 epochs a phase."
        ),
    ),
    "embedding_layers": Study(
        "Sentence embedders of fewer layers, taught by their teacher's vectors; STS-B beside the number of layers.",
        ("embeddings",),
        ("embeddings.layers.fewer_is_worse", "embeddings.layers.half_is_enough", "embeddings.layers.one_is_too_few"),
        "methods",
        silent=(
            "The published teacher has 12 layers and was fine-tuned on STS-B itself; a teacher of 6 layers that was "
            "not is another one, and its students see fewer sentences."
        ),
    ),
    "lgtm_glue": Study(
        "LGTM: a teacher that learns beside its student, steered or not, against vanilla KD and fine-tuning.",
        ("lgtm", "distilling"),
        ("lgtm.over_kd", "lgtm.over_prokt", "distilling_helps"),
        "methods",
        silent=(
            "The paper's student is a pretrained 6-layer BERT of its own and its teacher BERT-base; here both are "
            "cut from one MiniLM, and the teacher's learning rate was not searched."
        ),
    ),
    "objective_study": Study(
        "How to Distill your BERT, Table 1: all objectives from every k-th teacher layer.",
        HOWTO,
        (
            "howto.att_kl_over_kd.spread",
            "howto.att_mse_over_kd.spread",
            "howto.att_kl_over_hid_seq.spread",
            "distilling_helps",
        ),
    ),
    "objectives_all": Study(
        "All objectives side by side: same teacher, start and budget.",
        ("distilling", "intermediate"),
        ("distilling_helps",),
        "methods",
        silent=(
            "Weights and learning rates are what six trials on two classes chose by one seed (the tuning form): no "
            "weight was searched for long, and an objective that loses here may have been given the wrong one. Where "
            "two rows share a letter, the runs cannot tell them apart, which is not to say that they are equal."
        ),
    ),
    "pea_kd": Study(
        "Pea-KD: parameter sharing and PTP, equal parameters but not equal cost.",
        ("pea",),
        ("pea.sps_ptp_over_pkd", "pea.sharing_alone", "pea.shuffle_over_plain_sharing", "pea.ptp_alone"),
        "methods",
        silent=(
            "Shuffled sharing is compared at equal parameters, not at equal cost: a student with shared layers "
            "runs twice the layers. PTP's labels come from a teacher that is right on nearly all of its training "
            "examples, as in the paper."
        ),
    ),
    "pkd_glue": Study(
        "PKD: Skip and Last against vanilla KD and fine-tuning, with sizes and cost.",
        ("pkd", "distilling"),
        ("pkd.over_kd", "pkd.skip_over_last", "distilling_helps"),
        "methods",
        silent=(
            "The weight of the patience loss is one value for all tasks here; the paper searched it for each. A "
            "student of 3 layers has two layers to match, so Skip and Last differ in one of them."
        ),
    ),
    "pro_kd_cifar": Study(
        "Pro-KD (our reading) on images: following a residual network's checkpoints, with its controls.",
        ("pro_kd", "continuation", "distilling"),
        ("pro_kd.over_kd", "pro_kd.over_final", "pro_kd.order_over_reversed"),
        "methods",
        silent=(
            "The teacher is a ResNet-20 trained for minutes, and its student sees few images for few epochs: "
            "both are far from where the paper's stop, so that speed of learning and final accuracy are not apart."
        ),
    ),
    "pro_kd_glue": Study(
        "Pro-KD (our reading): following the teacher's checkpoints, with its controls.",
        ("pro_kd", "continuation", "distilling"),
        ("pro_kd.over_kd", "pro_kd.over_final", "pro_kd.order_over_reversed"),
        "methods",
        silent=(
            "The paper has no released code and leaves the temperature's schedule, the number of checkpoints kept "
            "and the budget open; this is our reading of it, stated in the configuration."
        ),
    ),
    "pro_kd_squad": Study(
        "Pro-KD (our reading) on questions: following the teacher's checkpoints, with its controls.",
        ("pro_kd", "distilling"),
        ("pro_kd.over_kd", "pro_kd.over_final", "pro_kd.order_over_reversed"),
        "methods",
        silent=(
            "Students start from layers of the last checkpoint, whichever they follow, and see few windows; scored is "
            "a part of another cut of the questions, after the last epoch."
        ),
    ),
    "quickstart": Study(
        "The quickstart: which teacher layers a small student of MiniLM should start from; whether distilling helps.",
        ("howto.kd.first_over", "distilling"),
        ("howto.kd.first_over_spread.all", "distilling_helps"),
        delta=(1.5, 1.5),
    ),
    "ted_glue": Study(
        "TED: task-aware filters, layer-wise distillation and KD, each from raw and from fine-tuned students.",
        ("ted", "distilling"),
        ("ted.over_lwd_over_kd", "ted.over_finetune", "ted.as_published"),
        "methods",
        silent=(
            "Filters are trained for as long as the cards say in proportion, on a teacher a third as wide as the "
            "paper's; nothing was searched, the paper searched its weights per task."
        ),
    ),
    "ted_squad": Study(
        "TED on questions: task-aware filters, layer-wise distillation and KD, each from raw and fine-tuned students.",
        ("ted", "distilling"),
        ("ted.over_lwd_over_kd", "ted.over_finetune", "ted.as_published"),
        "methods",
        silent=(
            "Students start from layers of the fine-tuned teacher, where the paper's is a pretrained model of its own, "
            "and see few windows; scored is a part of another cut of the questions. The teacher is half as wide as the "
            "paper's, and nothing was searched."
        ),
    ),
    "width_init": Study(
        "Students four times smaller, as deep as their teacher: from which of its dimensions they should start.",
        ("width", "distilling"),
        ("width.cut_over_random", "width.importance_over_slice", "width.wid_over_importance", "distilling_helps"),
        "methods",
        silent=(
            "Most of what is left of a teacher of 23 million parameters are embeddings; BERT-base keeps more of its "
            "layers when it is cut to a quarter. WID is our shortened reading, with minutes where the paper has hours, "
            "and its stage is computed beside the budget that all students share; the learning rate of its compactors "
            "is the source's since two first runs at the students' own had learned nothing half-way."
        ),
    ),
}


def entry(study: str) -> tuple[Study, float]:
    """The entry of a study, or of the study that ``NAME_desk`` is a smaller form of, and its delta.

    A study that is not in the table has no primary claims.
    """
    names = [name for name in STUDIES if study == name or study.startswith(f"{name}_")]
    if not names:
        return Study("A study of your own."), 1.0
    known = STUDIES[max(names, key=len)]
    return known, known.delta[study not in STUDIES]
