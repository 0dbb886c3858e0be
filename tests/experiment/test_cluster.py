"""Rows as jobs: in this process, as processes through submitit, and through a pretended Slurm."""

import os
import sys
from pathlib import Path

import pytest
from effort import long

from maqd.cli import main
from maqd.experiment.base import rows, settings_of
from maqd.experiment.cluster import Job
from maqd.experiment.findings import Finding, append_finding, read_findings
from maqd.experiment.functions import Functions
from maqd.recipes import Budget

SLURM = """#!{python}
'''Slurm's commands for one machine: sbatch runs the script, sacct says whether it has ended.'''
import os, pathlib, subprocess, sys

folder, (name, given) = pathlib.Path(__file__).parent, (os.path.basename(sys.argv[0]), sys.argv[1:])
if name == "sbatch":
    job = str(1 + len(list(folder.glob("*.job"))))
    environment = {{**os.environ, "SLURM_JOB_ID": job, "SLURM_NTASKS": "1", "SLURM_JOB_NUM_NODES": "1",
                   "SLURM_NODEID": "0", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_JOB_NODELIST": "here"}}
    (folder / f"{{job}}.job").write_text(pathlib.Path(given[-1]).read_text())
    log = open(folder / f"{{job}}.log", "w")
    subprocess.Popen(
        ["sh", "-c", f"bash {{given[-1]}}; echo $? > {{folder}}/{{job}}.end"], env=environment, stdout=log, stderr=log
    )
    print("Submitted batch job", job)
elif name == "srun":
    start = next(place for place, word in enumerate(given) if not word.startswith("-") and "%" not in word)
    os.execv(given[start], given[start:])
elif name == "sacct":
    print("JobID|State|NodeList")
    for job in folder.glob("*.job"):
        end = folder / f"{{job.stem}}.end"
        state = "RUNNING" if not end.exists() else "COMPLETED" if end.read_text().strip() == "0" else "FAILED"
        print(f"{{job.stem}}|{{state}}|here")
"""


def all_but(count: int, folder: Path) -> None:
    """A file of results of `functions` that lacks its last rows."""
    for point, seed in rows(Functions(), Budget.CPU)[:-count]:
        finding = Finding(
            experiment="functions", point=settings_of(point), seed=seed, figures=Functions().figures(point, seed, None),
            config=(), revision="r", versions={}, machine="m", seconds=1.0,
        )  # fmt: skip
        append_finding(folder / "results.jsonl", finding)


def test_a_job_measures_its_row_once(tmp_path: Path):
    point, seed = rows(Functions(), Budget.CPU)[0]
    job = Job(
        experiment="functions", point=point, seed=seed, results=tmp_path / "results.jsonl", runs=tmp_path / "runs",
        data=None, cache=None, threads=1,
    )  # fmt: skip
    job()
    job()
    (found,) = read_findings(job.results)
    assert found.point == settings_of(point)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--jobs", "2"], "--jobs and --scheduler belong to --executor"),
        (["--executor", "local", "--jobs", "0"], "--jobs must be at least 1, got 0"),
        (["--executor", "slurm", "--scheduler", "partition"], "--scheduler takes NAME=VALUE, got 'partition'"),
    ],
)
def test_wrong_options_of_jobs(given: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["experiment", "functions", "-o", str(tmp_path), *given]) == 2
    assert said in capsys.readouterr().err


def test_jobs_need_submitit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert main(["experiment", "functions", "-o", str(tmp_path), "--executor", "local"]) == 1
    assert "maqd experiment --executor needs submitit, which is not installed" in capsys.readouterr().err


@long
def test_rows_are_measured_by_processes_of_this_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("submitit")
    all_but(2, tmp_path)
    assert main(["experiment", "functions", "-o", str(tmp_path), "--executor", "local", "--jobs", "2"]) == 0
    told = capsys.readouterr().out
    assert "functions 2/2: job " in told
    assert "2 measurements made" in told
    points = [one.point for one in read_findings(tmp_path / "results.jsonl")]
    wanted = [settings_of(point) for point, _ in rows(Functions(), Budget.CPU)]
    assert sorted(sorted(one.items()) for one in points) == sorted(sorted(one.items()) for one in wanted)


@long
def test_rows_are_measured_through_slurm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    pytest.importorskip("submitit")
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("sbatch", "srun", "sacct", "scancel"):
        (tools / name).write_text(SLURM.format(python=sys.executable))
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    all_but(1, tmp_path)
    given = ["--executor", "slurm", "--scheduler", "slurm_partition=few", "--scheduler", "timeout_min=7"]
    assert main(["experiment", "functions", "-o", str(tmp_path), *given]) == 0, capsys.readouterr().err
    assert len(read_findings(tmp_path / "results.jsonl")) == len(rows(Functions(), Budget.CPU))
    (script,) = tools.glob("*.job")
    assert "#SBATCH --partition=few" in script.read_text()
    assert "#SBATCH --time=7" in script.read_text()
