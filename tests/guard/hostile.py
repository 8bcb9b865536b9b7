"""Configurations of a stranger: files below a folder that is given with ``--config-dir``, and how they are called.

Each would run code, read a secret, trust a stranger's machine, write elsewhere or never end. ``evil`` is a package in
the working directory that plants a marker when it is imported; so does whatever else is called.
"""

from __future__ import annotations

from dataclasses import dataclass, field

HEAD = "# @package _global_\n"
CALL = ["+experiment=x", "task=local", "task.folder=nowhere", "dry=true"]
TERM = "objective: {{prediction: {{kd: {}}}}}\n"


@dataclass(frozen=True)
class Hostile:
    """One attack.

    Attributes:
        files: path below the folder -> text.
        words: of the command line, beside ``--config-dir``.
        says: what the refusal names.
    """

    files: dict[str, str]
    words: list[str] = field(default_factory=lambda: list(CALL))
    says: str = ""


def experiment(body: str, *words: str, says: str = "", defaults: str = "", **files: str) -> Hostile:
    """An experiment ``x`` with that content."""
    head = f"defaults: [{defaults}]\n" if defaults else ""
    named = {path.replace("__", "/") + ".yaml": text for path, text in files.items()}
    return Hostile({"experiment/x.yaml": HEAD + head + body, **named}, [*CALL, *words], says)


def callback(target: str, *words: str, more: str = "") -> Hostile:
    """An experiment that asks Hydra for a callback."""
    return experiment(f"hydra: {{callbacks: {{x: {{_target_: {target}{more}}}}}}}\n", *words, says="hydra.callbacks")


def bomb(levels: int = 9, width: int = 9) -> str:
    """Aliases that stand for width ** levels nodes."""
    lines = ["a0: &a0 [x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * width)}]" for n in range(1, levels + 1)]
    return "\n".join(lines) + "\n"


def chain(levels: int = 40, width: int = 3) -> str:
    """Interpolations that stand for width ** levels letters."""
    lines = ["c0: xxxxxxxxxx"] + [f"c{n}: '{f'${{c{n - 1}}}' * width}'" for n in range(1, levels + 1)]
    return "\n".join(lines) + f"\nstudy: ${{c{levels}}}\n"


HOSTILE: dict[str, Hostile] = {
    # Hydra makes callbacks of whatever a file names, before anything is checked
    "callback_import": callback("evil.Callback"),
    "callback_torch_load": callback("torch.load", more=", f: evil.pkl, weights_only: false"),
    "callback_pickle": callback("pandas.read_pickle", more=", filepath_or_buffer: evil.pkl"),
    "callback_joblib": callback("joblib.load", more=", filename: evil.pkl"),
    "callback_transformers": callback("transformers.dynamic_module_utils.get_class_in_module", more=", class_name: A"),
    "callback_system": callback("os.system", more=", command: touch marker"),
    "callback_cfg": callback("evil.Callback", "--cfg=job"),
    "callback_help": callback("evil.Callback", "--help"),
    "callback_plan": callback("evil.Callback", "plan=show"),
    "callback_single": Hostile(
        {"experiment/x.yaml": HEAD + "hydra: {mode: RUN, callbacks: {x: {_target_: evil.Callback}}}\n"}, CALL
    ),
    "callback_partial": callback("evil.Callback", more=", _partial_: true, _args_: [1]"),
    "callback_replaced": experiment("hydra: {callbacks: {check: {_target_: evil.Callback}}}\n", says="hydra.callbacks"),
    "callback_group": experiment(
        "", defaults="override /hydra/callbacks: bad", hydra__callbacks__bad="x: {_target_: evil.C}\n"
    ),
    "callback_package": experiment("", defaults="/recipe@hydra.callbacks: bad", recipe__bad="x: {_target_: evil.C}\n"),
    "callback_header": experiment(
        "", defaults="/bad: bad", bad__bad="# @package hydra.callbacks\nx: {_target_: evil.C}\n"
    ),
    "callback_typed": Hostile({}, ["+hydra.callbacks.x={_target_: evil.Callback}", "dry=true"], "hydra.callbacks"),
    "callback_removed": Hostile({}, ["~hydra.callbacks.check", "dry=true"], "hydra.callbacks"),
    # launchers and sweepers
    "launcher_function": experiment(
        "hydra: {mode: MULTIRUN, launcher: {_target_: kdexp.launch.child.work, order: 1}}\n",
        defaults="override /hydra/launcher: basic",
    ),
    "launcher_foreign": experiment("hydra: {launcher: {_target_: evil.Launcher}}\n", says="hydra.launcher"),
    "launcher_module": experiment("hydra: {mode: MULTIRUN, launcher: {_target_: kdexp.launch.child.os.system}}\n"),
    "launcher_abstract": experiment("hydra: {mode: MULTIRUN, launcher: {_target_: kdexp.launch.base.Launcher}}\n"),
    "launcher_group": experiment(
        "", defaults="override /hydra/launcher: bad", hydra__launcher__bad="_target_: evil.Launcher\n"
    ),
    "launcher_nested": experiment(
        "hydra: {launcher: {parameters: {x: {_target_: evil.C}}}}\n", defaults="override /hydra/launcher: submitit"
    ),
    "launcher_setup": experiment(
        "hydra: {launcher: {parameters: {slurm_setup: [touch marker]}}}\n",
        defaults="override /hydra/launcher: submitit",
        says="slurm_setup",
    ),
    "launcher_lines": experiment(
        'hydra: {launcher: {parameters: {slurm_account: "me\\ntouch marker"}}}\n',
        defaults="override /hydra/launcher: submitit",
        says="slurm_account",
    ),
    "launcher_python": experiment(
        "hydra: {launcher: {executor: local, parameters: {slurm_python: ./evil}}}\n",
        defaults="override /hydra/launcher: submitit",
    ),
    "launcher_cluster": experiment(
        "hydra: {launcher: {address: 'ray://stranger:10001'}}\n",
        defaults="override /hydra/launcher: ray",
        says="hydra.launcher.address",
    ),
    "launcher_text": experiment("hydra: {launcher: '${x}'}\nx: {_target_: evil.Launcher}\n"),
    "sweeper_foreign": experiment("hydra: {sweeper: {_target_: evil.Sweeper}}\n", says="hydra.sweeper"),
    "sweeper_hydra": experiment("", defaults="override /hydra/sweeper: basic", says="hydra.sweeper"),
    "sweeper_nested": experiment("hydra: {sweeper: {params: {seed: {_target_: evil.C}}}}\n", says="_target_"),
    "sweeper_args": experiment("hydra: {sweeper: {_args_: [1]}}\n", says="_args_"),
    "sweeper_deep": experiment("hydra: {sweeper: {union: [{zip: [{seed: [{_target_: evil.C}]}]}]}}\n"),
    "sweeper_callbacks": experiment("hydra: {sweeper: {params: {'+hydra.callbacks.x._target_': evil.C}}}\n"),
    "sweeper_store": experiment("hydra: {sweeper: {set: {runtime.store: /tmp/stranger}}}\n", says="runtime.store"),
    "sweeper_storage": experiment(
        "hydra: {sweeper: {storage: 'postgresql://stranger/x', space: {seed: [1, 2]}}}\n",
        defaults="override /hydra/sweeper: optuna",
        says="hydra.sweeper.storage",
    ),
    # logging, folders, the environment of jobs, where files are looked for
    "logging_class": experiment(
        "hydra: {job_logging: {version: 1, handlers: {h: {'()': evil.Handler}}, root: {handlers: [h]}}}\n",
        says="hydra.job_logging",
    ),
    "logging_hydra": experiment("hydra: {hydra_logging: {version: 1, handlers: {h: {class: evil.Handler}}}}\n"),
    "logging_file": experiment(
        "hydra: {job_logging: {handlers: {h: {class: logging.FileHandler, filename: /tmp/kdexp_marker}}}}\n"
    ),
    "env_set": experiment("hydra: {job: {env_set: {LD_PRELOAD: ./evil.so}}}\n", says="hydra.job"),
    "env_copy": experiment("hydra: {job: {env_copy: [HF_TOKEN]}}\n", says="hydra.job"),
    "env_group": experiment(
        "", defaults="override /hydra/env: bad", hydra__env__bad="# @package hydra.job\nenv_set: {A: b}\n"
    ),
    "env_typed": Hostile({}, ["+hydra.job.env_set.LD_PRELOAD=evil.so", "dry=true"], "env_set"),
    "run_dir": experiment("hydra: {run: {dir: /tmp/kdexp_marker}}\n", says="hydra.run"),
    "sweep_dir": experiment("hydra: {sweep: {dir: /tmp/kdexp_marker}}\n", says="hydra.sweep"),
    "output_subdir": experiment("hydra: {output_subdir: ../../kdexp_marker}\n"),
    "help": experiment('hydra: {help: {template: "\\e]0;evil\\a"}}\n', "--help", says="hydra.help"),
    "searchpath": experiment("hydra: {searchpath: ['pkg://evil.conf']}\n"),
    "searchpath_primary": Hostile(
        {"bad.yaml": "defaults: [config, _self_]\nhydra: {searchpath: ['pkg://evil.conf']}\n"},
        ["--config-name=bad", "dry=true"],
        "hydra.searchpath",
    ),
    "searchpath_typed": Hostile({}, ["hydra.searchpath=['pkg://evil.conf']", "dry=true"], "pkg://evil"),
    "rerun": Hostile({}, ["--experimental-rerun=evil.pkl"], "pickled"),
    "rerun_short": Hostile({}, ["--exp", "evil.pkl"], "pickled"),
    # classes that a node names
    "term_foreign": experiment(TERM.format("{_target_: evil.C}"), says="KDEXP_TARGETS"),
    "term_parent": experiment(TERM.format("{_target_: kdexp.objectives..evil.C}")),
    "term_relative": experiment(TERM.format("{_target_: .evil.C}")),
    "term_function": experiment(TERM.format("{_target_: kdexp.objectives.common.over_layers}"), says="no class"),
    "term_borrowed": experiment(TERM.format("{_target_: kdexp.tasks.text.files.Path}"), says="not of this kind"),
    "term_init": experiment(TERM.format("{_target_: kdexp.inits.first.First}"), says="not of this kind"),
    "term_interface": experiment(TERM.format("{_target_: kdexp.objectives.base.Objective}"), says="not of this kind"),
    "term_nested": experiment(TERM.format("{temperature: {_target_: evil.C}}")),
    "term_partial": experiment(TERM.format("{_partial_: true}"), says="_partial_"),
    "term_recursive": experiment(TERM.format("{_recursive_: true}"), says="_recursive_"),
    "term_args": experiment(TERM.format("{_args_: [evil.pkl]}"), says="_args_"),
    "term_pointing": experiment(TERM.format("{_target_: '${x}'}") + "x: evil.C\n"),
    "init_foreign": experiment("init: {_target_: evil.C}\n", says="KDEXP_TARGETS"),
    "init_objective": experiment("init: {_target_: kdexp.objectives.kd.KD}\n", says="not of this kind"),
    "init_interface": experiment("init: {_target_: kdexp.inits.base.Init}\n", says="not of this kind"),
    "task_foreign": experiment("task: {_target_: evil.C}\n", says="KDEXP_TARGETS"),
    "task_head": experiment("task: {_target_: kdexp.heads.classification.Classification}\n", says="not of this kind"),
    "task_wrong_lgtm": experiment(
        "task: {_target_: kdexp.tasks.text.files.Path}\n", defaults="override /objective: lgtm", says="not of this kind"
    ),
    "method_foreign": experiment("objective: {method: evil.C}\n", says="KDEXP_TARGETS"),
    "method_function": experiment("objective: {method: kdexp.methods.base.stages}\n", says="no method"),
    "method_interface": experiment("objective: {method: kdexp.methods.base.Method}\n", says="no method"),
    "grid_term": experiment(
        "hydra: {mode: MULTIRUN, sweeper: {params: {objective.prediction.kd._target_: [evil.C]}}}\n",
        says="KDEXP_TARGETS",
    ),
    # weights in a package, which must not be imported to be found
    "package": experiment("teacher: {source: 'package:evil/model'}\n"),
    "package_inner": experiment("teacher: {source: 'package:evil.inner/model'}\n"),
    "package_above": experiment("teacher: {source: 'package:evil/../x'}\n"),
    "package_main": experiment("teacher: {source: 'package:__main__/model'}\n"),
    # secrets, by every way of writing an interpolation
    "secret": experiment("study: ${oc.env:HF_TOKEN}\n", says="HF_TOKEN"),
    "secret_default": experiment("study: '${oc.env:HF_TOKEN,x}'\n", says="HF_TOKEN"),
    "secret_nested": experiment("name_of_it: HF_TOKEN\nstudy: '${oc.env:${name_of_it}}'\n"),
    "secret_decoded": experiment("study: '${oc.decode:\"${oc.env:HF_TOKEN}\"}'\n"),
    "secret_spaced": experiment("study: '${ oc.env : HF_TOKEN }'\n"),
    "secret_quoted": experiment("study: '${oc.env:\"HF_TOKEN\"}'\n"),
    "secret_selected": experiment("study: '${oc.select:x,${oc.env:HF_TOKEN}}'\n"),
    "secret_grid": experiment("hydra: {sweeper: {params: {objective.name: '${oc.env:HF_TOKEN}'}}}\n"),
    "secret_escaped": experiment(
        "hydra: {mode: MULTIRUN, sweeper: {params: {objective.name: '$\\{oc.env:HF_TOKEN\\}'}}}\n", says="HF_TOKEN"
    ),
    "secret_typed": Hostile({}, ["study=${oc.env:HF_TOKEN}", "dry=true"], "HF_TOKEN"),
    "secret_typed_escaped": Hostile({}, ["study=$\\{oc.env:HF_TOKEN\\}", "dry=true"], "HF_TOKEN"),
    "created": experiment("study: '${oc.create:\"{a: b}\"}'\n"),
    # whom a run trusts
    "store": experiment("runtime: {store: /tmp/stranger}\n", says="runtime.store"),
    "store_up": experiment("runtime: {store: multirun/../../stranger}\n", says="runtime.store"),
    "store_default": experiment("runtime: {store: '${oc.env:KDEXP_NO,/tmp/stranger}'}\n", says="runtime.store"),
    "store_pointing": experiment("runtime: {store: '${x}'}\nx: /tmp/stranger\n", says="runtime.store"),
    "store_group": experiment("", defaults="override /runtime: bad", runtime__bad="store: ./stranger\n"),
    "store_whole": experiment("runtime: '${x}'\nx: {store: ./stranger}\n"),
    "remote": experiment("runtime: {remote: 's3://stranger/x'}\n", says="runtime.remote"),
    "server": experiment("tracking: {uri: 'http://stranger/'}\n", says="tracking.uri"),
    "server_like": experiment("tracking: {uri: 'http://127.0.0.1@stranger/'}\n", says="tracking.uri"),
    "database": experiment("tracking: {uri: 'sqlite:////tmp/kdexp_marker'}\n", says="tracking.uri"),
    # grids and files without end
    "grid": experiment("hydra: {mode: MULTIRUN, sweeper: {params: {seed: 'range(0,1e12)'}}}\n", says="100,000 values"),
    "grid_allowed": experiment("hydra: {sweeper: {most_points: 1000000000}}\n", says="hydra.sweeper.most_points"),
    "bomb": experiment(bomb(), says="aliases"),
    "bomb_merged": experiment("a: &a {x: 1}\nb: &b {<<: *a, y: *a}\n" + bomb(8, 9)),
    "bomb_itself": experiment("a: &a [*a]\n"),
    "bomb_interpolated": experiment(chain(), says="interpolations"),
    "bomb_pairs": experiment(chain(30, 2), says="interpolations"),
    "deep": experiment("a: " + "[" * 5000 + "]" * 5000 + "\n", says="nested"),
    "deep_lines": experiment("".join(f"{' ' * n}a{n}:\n" for n in range(100)), says="nested"),
    "large": experiment("a: '" + "x" * 400_000 + "'\n", says="bytes"),
    "tag_python": experiment("a: !!python/object/apply:os.system ['touch marker']\n", says="tag"),
    "tag_path": experiment("a: !!python/object/apply:pathlib.Path ['/x']\n", says="tag"),
    "tag_own": experiment("a: !evil {x: 1}\n", says="tag"),
    "no_mapping": experiment("- a\n- b\n"),
    "no_yaml": experiment("a: [1, 2\nb: }\n"),
    "no_text": experiment("a: \x00\n"),
    # files elsewhere
    "above": Hostile({"../outside/x.yaml": HEAD + "seed: 2\n"}, ["+experiment=../../outside/x", "dry=true"]),
    "above_defaults": experiment("", defaults="/../outside/x", **{"..__outside__x": "seed: 2\n"}),
}
