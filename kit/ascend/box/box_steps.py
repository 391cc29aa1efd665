"""Going through the steps of a run on the box, each of which leaves its trace in results.json. Python 3.8, no kit.

This travels to the box inside the scripts that ``kit.ascend.box.box_script`` puts together.
"""

from __future__ import annotations

import time

from kit.ascend.box.box_tools import FAKE, Skip, say, write_json
from kit.runtimes.om_session import Failure


class Steps:
    """What every script on the box does with its steps.

    Args:
        names: of the steps, in order.
        out: folder of the results.
        verbose: let an unexpected error end the script with its traceback.

    Attributes:
        results: the content of results.json; "steps" and "fake" are kept up to date here.
        fakes: names of the tools that are FAKE.
    """

    def __init__(self, names, out, verbose=False):
        self.names, self.out, self.verbose = names, out, verbose
        self.fakes = set()
        self.results = {"fake": "", "steps": [{"step": name, "state": "skipped", "seconds": 0.0,
                                               "message": "not reached", "explained": []} for name in names]}

    def go(self, work, past, reader):
        """Go through the steps; the exit code: 0 all well, 1 something failed, 130 interrupted.

        Args:
            work: what each step does; returns its message.
            past: names of steps whose failure does not end the run.
            reader: what reads the results, in words.
        """
        try:
            for number, name in enumerate(self.names):
                if not self._step(number, work[number]) and name not in past:
                    break
        except KeyboardInterrupt:
            say(f"Interrupted. What was done until then is in {self.out / 'results.json'}")
            return 130
        finally:
            self.release()
            self.write()
        failed = [row["step"] for row in self.results["steps"] if row["state"] == "failed"]
        say(f"Failed: {', '.join(failed)}." if failed else "All done.")
        say(f"Take this folder back and read it with {reader}: {self.out}")
        return 1 if failed else 0

    def meaning(self, error):
        """What the log behind a Failure says: rows of code, cause, node and next step."""
        return []

    def release(self):
        """Give back whatever is held."""

    def write(self):
        """Write results.json as it stands."""
        self.results["fake"] = ", ".join(f"{FAKE} {name}" for name in sorted(self.fakes))
        write_json(self.out / "results.json", self.results)

    def _step(self, number, work):
        row = self.results["steps"][number]
        row.update(state="failed", message="did not end")  # as it stays where the machine goes down in it
        self.write()
        began = time.monotonic()
        try:
            row.update(message=work(), state="done")
        except Skip as reason:
            row.update(message=str(reason), state="skipped")
        except Failure as error:
            row.update(message=error.what, explained=self.meaning(error))
        except KeyboardInterrupt:
            row.update(message="interrupted")
            raise
        except Exception as error:  # a results file that says what broke is worth more than a traceback alone
            row.update(message=f"unexpected {type(error).__name__}: {error}")
            if self.verbose:
                raise
        finally:
            row["seconds"] = round(time.monotonic() - began, 3)
            say(f"[{number + 1}/{len(self.names)}] {row['step']}: {row['state']}. {row['message']}")
            for found in row["explained"]:
                say(f"      {found['code']} {found['cause']}" + (f". Next: {found['next']}" if found["next"] else ""))
            self.write()
        return row["state"] != "failed"
