"""Check this kit and install the course from it, without internet: INSTALL.txt tells how to start.

Needs nothing but Python. A run that was broken off is simply repeated.
"""

import hashlib
import json
import platform
import subprocess
import sys
from pathlib import Path

KIT = Path(__file__).resolve().parent


def damaged():
    """Names of files that are missing or whose content is not that of SHA256SUMS.

    Once an installation has begun the lessons are the learner's own and may have changed.
    """
    begun = (KIT / "course" / ".venv").exists()
    rows = (KIT / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    for digest, name in (row.split("  ", 1) for row in rows):
        if begun and name.startswith("course/"):
            continue
        path, found = KIT / name, hashlib.sha256()
        if path.is_file():
            with open(path, "rb") as handle:
                while part := handle.read(1 << 20):
                    found.update(part)
        if found.hexdigest() != digest:
            yield name


def main():
    kit = json.loads((KIT / "kit.json").read_text(encoding="utf-8"))
    found = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if (platform.system(), found) != (kit["system"], kit["python"]):
        wanted = f"{kit['system']}, Python {kit['python']}"
        sys.exit(
            f"Paket ini untuk {wanted}; di sini {platform.system()}, Python {found}.\n"
            f"This kit is for {wanted}; this is {platform.system()}, Python {found}."
        )
    print("Memeriksa berkas · Checking files ...", flush=True)
    if torn := list(damaged()):
        print(*torn, sep="\n")
        sys.exit(
            "Berkas di atas rusak: salin lagi. · The files above are damaged: copy them again."
        )
    course = KIT / "course"
    home = course / ".venv"
    python = home / ("Scripts/python.exe" if kit["system"] == "Windows" else "bin/python")
    print(f"Memasang ke · Installing to {home} ...", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
    pip = [str(python), "-m", "pip", "--isolated", "--disable-pip-version-check", "install"]
    pip += ["--quiet", "--no-index", "--find-links", str(KIT / "wheels")]
    for wanted in (
        ["-r", str(course / "requirements.lock")],
        ["--no-deps", kit["model"]],
        ["--no-deps", "-e", str(course)],
    ):
        subprocess.run([*pip, *wanted], check=True)
    (home / "offline").touch()  # run_all.sh takes this set-up as it is
    print(
        "Selesai. Langkah berikut · Done. Next steps:\n"
        f"  cd {course}\n"
        f"  {python.relative_to(course)} -m helpers doctor\n"
        f"  {python.relative_to(course)} -m helpers lab"
    )


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as problem:
        sys.exit(
            "Pemasangan gagal, sebabnya di atas; jalankan lagi. · The installation failed, the "
            f"reason is above; run it again. (exit code {problem.returncode})"
        )
