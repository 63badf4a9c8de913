"""What was sent to which service: file ids by content, job ids by settings, events already shown. Holds no key."""

from __future__ import annotations

from pathlib import Path

from ..course.errors import CourseError
from ..course.files import read_json, write_json


class State:
    """One JSON file for all services; `where` is the address of the one in use. Every change is written at once, whole or not at all.

    Deleting the file is harmless: what the service still holds is found there by name.
    """

    def __init__(self, path: Path, where: str):
        self.path, self._all = path, {}
        if path.exists():
            try:
                self._all = read_json(path)
                sound = all(
                    isinstance(known[part], dict)
                    for known in self._all["services"].values()
                    for part in ("files", "jobs", "seen")
                )
            except (ValueError, LookupError, TypeError, AttributeError):
                sound = False
            if not sound:
                raise CourseError(
                    f"{path} is not a state file of this course. Delete it and run again: what the service holds is found there, "
                    "so nothing is sent twice."
                )
        self._mine = self._all.setdefault("services", {}).setdefault(
            where, {"files": {}, "jobs": {}, "seen": {}}
        )

    def file(self, digest: str) -> str | None:
        return self._mine["files"].get(digest, {}).get("id")

    def keep_file(self, digest: str, file_id: str, name: str) -> None:
        self._keep("files", digest, {"id": file_id, "name": name})

    def forget_file(self, digest: str) -> None:
        self._forget("files", digest)

    def job(self, key: str) -> str | None:
        return self._mine["jobs"].get(key, {}).get("id")

    def keep_job(self, key: str, job_id: str, **told) -> None:
        self._keep("jobs", key, {"id": job_id, **told})

    def forget_job(self, key: str) -> None:
        self._forget("jobs", key)

    def jobs(self) -> list[dict]:
        """The jobs of this service that we started: id, model, file, hyperparameters, suffix."""
        return list(self._mine["jobs"].values())

    def seen(self, job_id: str) -> set[str]:
        """Ids of the events of a job that were shown."""
        return set(self._mine["seen"].get(job_id, []))

    def keep_seen(self, job_id: str, event_ids: list[str]) -> None:
        if event_ids:
            self._mine["seen"].setdefault(job_id, []).extend(event_ids)
            write_json(self.path, self._all)

    def _forget(self, part: str, key: str) -> None:
        if self._mine[part].pop(key, None) is not None:
            write_json(self.path, self._all)

    def _keep(self, part: str, key: str, value: dict) -> None:
        if self._mine[part].get(key) != value:
            self._mine[part][key] = value
            write_json(self.path, self._all)
