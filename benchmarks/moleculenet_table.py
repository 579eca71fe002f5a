"""Does pre-training help? One table of all checkpoints, joined from the reports of `benchmarks.moleculenet`.

    python -m benchmarks.moleculenet_table moleculenet moleculenet_molclr moleculenet_grover moleculenet_uni_mol

Nothing is measured here: the numbers are those of `benchmarks/results/<name>.json`, one or more files per checkpoint.
Each checkpoint is compared only with its own architecture from random weights; `benchmarks.moleculenet_recipes`
compares methods.
"""

import json
from collections.abc import Sequence

from benchmarks.harness.columns import NEURAL
from benchmarks.harness.report import argument_parser, markdown_table, mean_sd, write_report


def main(argv: Sequence[str] | None = None) -> int:
    parser = argument_parser(__doc__, model=False)
    parser.add_argument("names", nargs="+", help="files in the folder of the results, without .json")
    args = parser.parse_args(argv)
    models, protocols = [], []
    scores: dict[tuple[str, str], dict[str, list[float]]] = {}
    for name in args.names:
        report = json.loads((args.results / f"{name}.json").read_text(encoding="utf-8"))
        asked = report["settings"]["arguments"]
        if asked["model"] not in models:
            models.append(asked["model"])
        seeds: dict[str, set[int]] = {}
        for entry in report["results"]:
            seeds.setdefault(entry["task"], set()).add(entry["seed"])
        fewer = "".join(f" ({task}: {sorted(own)})" for task, own in seeds.items() if own != set(asked["seeds"]))
        protocols.append(
            f"- {asked['model']} ({report['settings']['checkpoint']}) on {', '.join(asked['tasks'])}: splits "
            f"{', '.join(asked['split_names'])}, seeds {asked['seeds']}{fewer}, settings per column: "
            f"{asked['trials']}, {asked['epochs']} epochs and at least {asked['updates']} updates, "
            f"{'fp32' if asked.get('float32') else 'bf16 autocast where the processor has it'}."
        )
        found: dict[tuple[str, str], dict[str, list[float]]] = {}
        for entry in report["results"]:
            if entry["column"] in NEURAL:
                title = f"{asked['model']}, {entry['column']}"
                found.setdefault((entry["task"], entry["variant"]), {}).setdefault(title, []).append(entry["test"])
        for key, columns in found.items():
            row = scores.setdefault(key, {})
            for title, values in columns.items():
                row[title] = max(row.get(title, []), values, key=len)
    columns = [f"{model}, {column}" for model in models for column in NEURAL]
    rows = [
        [*key, *(mean_sd(row[column]) if column in row else "not run" for column in columns)]
        for key, row in scores.items()
    ]
    text = [
        "# MoleculeNet, all checkpoints: does pre-training help?\n",
        "Test scores, mean ± standard deviation over splits and seeds. ROC-AUC, higher is better: BBBP, BACE, ClinTox, "
        "SIDER, Tox21; RMSE, lower is better: ESOL, FreeSolv, Lipophilicity.\n",
        markdown_table(["task", "variant", *columns], rows),
        "",
        *protocols,
        "- ClinTox counts for nobody: one-atom rules predict it. Wins, ties and losses stand in the tables of each "
        "checkpoint; other methods, each by its own recipe, in `moleculenet_recipes.md`.",
    ]
    write_report("moleculenet_all", "\n".join(text), {"tables": args.names}, args)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
