"""`hf-molrep push`: upload card, processor and weights of a folder to a Hub repository."""

import argparse
import json
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `push`."""
    parser.add_argument("folder", type=Path, help="folder with README.md, config.json, weights and processor")
    parser.add_argument("repo_id", help="<user or organisation>/<name>; created if it does not exist")
    parser.add_argument("--private", action="store_true", help="create it private; refuse an existing public one")
    parser.add_argument("--revision", help="branch, created if it does not exist (default: main)")
    parser.add_argument("--license", help="license for a new card, for instance apache-2.0 (default: none)")
    parser.add_argument("--message", default="Upload model", help="message of the commit")
    parser.add_argument("--dry-run", action="store_true", help="only list what would be uploaded")


def run(args: argparse.Namespace) -> int:
    """
    Upload the files of a model repository, with the token of `hf auth login` or `HF_TOKEN`. For the folder of a
    fine-tuning run without a card, write one from its report first.

    Raises:
        ValueError: see [`~hf_molrep.hub.push`]; `--license` is given although there is a card; or there is no card and
            the report is of another task than property prediction.
    """
    from ..hub import push, repository_files

    card, report = args.folder / "README.md", args.folder / "report" / "metrics.json"
    if not card.exists() and report.is_file():
        from ..cards import property_card

        metrics = json.loads(report.read_text(encoding="utf-8"))
        if metrics.get("task", "property-prediction") != "property-prediction":
            raise ValueError(f"{args.folder} holds a model for {metrics['task']}: write its card, {card}, first")
        property_card(metrics, args.repo_id.split("/")[-1], args.license).save(card)
        print(f"{card} was written from {report.relative_to(args.folder)}")
    elif args.license is not None:
        raise ValueError(f"{card} exists: write the license into its metadata")
    files, left_out = repository_files(args.folder)
    sizes = {name: (args.folder / name).stat().st_size for name in files}
    for name, size in sizes.items():
        print(f"{size / 1e6:10.3f} MB  {name}")
    if left_out:
        print(f"not uploaded: {', '.join(left_out)}")
    total = f"{len(files)} files, {sum(sizes.values()) / 1e6:.1f} MB"
    if args.dry_run:
        print(f"{total} would go to {args.repo_id}; nothing was uploaded")
        return 0
    commit = push(
        args.folder,
        args.repo_id,
        private=args.private or None,
        revision=args.revision,
        commit_message=args.message,
    )
    print(f"{total} uploaded: {commit.commit_url}")
    return 0
