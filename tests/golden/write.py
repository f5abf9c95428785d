"""Write the golden outputs anew: `python -m tests.golden.write`.

With the name of a plan, print that plan as lines of text instead, to be compared with what another
revision prints.
"""

import sys

from . import facts, modules, plans
from .compare import FOLDER, Names, write


def main(arguments: list[str]) -> None:
    """Write all golden files, or print plans."""
    names = Names.read()
    for name in arguments:
        for part, lines in plans.canonical(plans.plan_of(*plans.CASES[name]), names).items():
            print(f"# {part}", *lines, sep="\n")
    if arguments:
        return
    for old in (*FOLDER.glob("facts/*.json"), *FOLDER.glob("modules/*.txt")):
        old.unlink()
    for name, command in facts.cases():
        write(FOLDER / "facts" / f"{name}.json", facts.facts(command, names))
    write(FOLDER / "plans.json", {name: plans.facts(name, names) for name in plans.CASES})
    (FOLDER / "modules").mkdir(exist_ok=True)
    for name in modules.CASES:
        path = FOLDER / "modules" / f"{name}.txt"
        path.write_text(modules.code(name, names), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
