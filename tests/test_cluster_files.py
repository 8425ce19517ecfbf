"""What is shipped for clusters, as far as it can be tried without one: the files are whole, and name what exists."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
import tomllib
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer
import yaml

from wsl_sweep.cli import app
from wsl_sweep.spec.sections import ResourcesSection

ROOT = Path(__file__).parents[1]
CLUSTER = ROOT / "cluster"
DOCS = ROOT / "docs" / "cluster.md"
FILES = sorted(path for path in CLUSTER.rglob("*") if path.is_file())
COMMANDS: dict[str, Any] = dict(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def options_of(command: str) -> set[str]:
    return {name for parameter in COMMANDS[command].params for name in (*parameter.opts, *parameter.secondary_opts)}


def commands_in(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Every ``wsl-sweep <command> …`` of a file's lines and inline code, with the options given to it."""
    text = re.sub(r"\\\n\s*#?\s*", " ", path.read_text())
    for found in re.finditer(r"(?<![\w/.-])wsl-sweep ([a-z]+)\b([^`\n#]*)", text):
        yield found[1], re.findall(r"(?<=\s)--[a-z][a-z-]*", found[2])


ASKED = sorted({(command, option) for path in (DOCS, *FILES) for command, used in commands_in(path) for option in used})


def documents(path: Path) -> list[Any]:
    return list(yaml.safe_load_all(path.read_text()))


def test_what_the_documentation_lists_is_there_and_nothing_else() -> None:
    listed = {CLUSTER.parent / name for name in re.findall(r"^\| `(cluster/[^`]+)`", DOCS.read_text(), re.MULTILINE)}
    assert all(path.exists() for path in listed)
    assert [path for path in FILES if path not in listed and path.parent not in listed] == []


@pytest.mark.parametrize("command", ["run", "resume", "doctor", "stop", "status", "sync", "clean"])
def test_a_command_of_the_documentation_exists(command: str) -> None:
    assert command in {name for name, _ in commands_in(DOCS)}
    assert command in COMMANDS


@pytest.mark.parametrize(("command", "option"), ASKED, ids=lambda value: str(value))
def test_an_option_that_is_named_exists(command: str, option: str) -> None:
    assert command in COMMANDS
    assert option in options_of(command)


def test_every_command_and_option_beside_them_exists() -> None:
    named = {name for path in (DOCS, *FILES) for name, _ in commands_in(path)}
    assert named <= set(COMMANDS)
    alone = set(re.findall(r"`(--[a-z-]+)`", DOCS.read_text())) - {"--allowed-hosts"}  # of mlflow
    assert alone <= set().union(*(options_of(command) for command in COMMANDS if hasattr(COMMANDS[command], "params")))


def test_the_documented_resources_are_those_of_a_file() -> None:
    blocks = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", DOCS.read_text(), re.DOTALL)]
    shown = next(block["resources"] for block in blocks if "resources" in block)
    assert set(shown) == set(ResourcesSection.model_fields)
    section = ResourcesSection(**shown)
    defaults = ResourcesSection()
    for name in ("pending", "max_failures", "checkpoint_epochs"):
        assert getattr(section, name) == getattr(defaults, name)


def test_the_extra_that_is_to_be_installed_exists() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {extra for path in (DOCS, *FILES) for extra in re.findall(r"wsl-sweep\[(\w+)\]", path.read_text())}
    assert extras == {"cluster"}
    assert extras <= set(project["optional-dependencies"])


@pytest.mark.parametrize("path", [DOCS, *FILES], ids=lambda path: path.name)
def test_no_file_holds_a_secret(path: Path) -> None:
    text = path.read_text()
    assert not re.search(r"://[^/\s:@]+:[^/\s@]+@", text), "an address with a password"
    assert not re.search(r"(?:AKIA|ASIA)[A-Z0-9]{16}|\b[0-9a-f]{40,}\b", text)


# Ray's cluster launcher


def test_the_autoscaler_file_is_what_ray_takes() -> None:
    (config,) = documents(CLUSTER / "autoscaler.yaml")
    schema = json.loads(resources.files("ray").joinpath("autoscaler/ray-schema.json").read_text())
    jsonschema.validate(config, schema)
    head, gpu = config["available_node_types"][config["head_node_type"]], config["available_node_types"]["gpu"]
    assert head["resources"]["CPU"] == 0
    assert "InstanceMarketOptions" not in head["node_config"]
    assert gpu["min_workers"] == 0
    assert 0 < gpu["max_workers"] <= config["max_workers"]


def test_every_node_of_the_autoscaler_has_the_token_and_the_versions() -> None:
    (config,) = documents(CLUSTER / "autoscaler.yaml")
    (token,) = config["file_mounts"]
    below_home = token.removeprefix(f"/home/{config['auth']['ssh_user']}/")
    for role, start in (("head", "ray start --head"), ("worker", "ray start --address=$RAY_HEAD_IP:")):
        command = next(line for line in config[f"{role}_start_ray_commands"] if "ray start" in line)
        assert start in command
        before = command.partition("ray start")[0]
        assert f'RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$HOME/{below_home}"' in before
        assert_bash(command)
    assert "--num-cpus=0" in config["head_start_ray_commands"][-1]
    setup = "\n".join(config["setup_commands"])
    assert_bash(setup)
    assert f'RAY_AUTH_TOKEN_PATH="$HOME/{below_home}"' in setup
    assert re.search(r"'ray\[default\]==2\.\d+\.\d+'", setup)
    assert "wsl-sweep" in setup


# KubeRay


def ray_job() -> tuple[dict[str, Any], dict[str, Any]]:
    config_map, job = documents(CLUSTER / "rayjob.yaml")
    return config_map, job


def test_the_ray_job_has_what_kuberay_needs() -> None:
    config_map, job = ray_job()
    assert (config_map["kind"], job["apiVersion"], job["kind"]) == ("ConfigMap", "ray.io/v1", "RayJob")
    spec, cluster = job["spec"], job["spec"]["rayClusterSpec"]
    assert spec["backoffLimit"] > 0, "a job that is made again goes on with the sweep"
    assert spec["shutdownAfterJobFinishes"] is True
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["enableInTreeAutoscaling"] is True
    head, (worker,) = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert worker["minReplicas"] == 0 < worker["maxReplicas"]
    images = set()
    for group in (head, worker):
        pod = group["template"]["spec"]
        assert pod["terminationGracePeriodSeconds"] >= 90
        (container,) = pod["containers"]
        images.add(container["image"])
        assert {"secretRef": {"name": "wsl-sweep-credentials", "optional": True}} in container["envFrom"]
        assert all(isinstance(entry.get("value", ""), str) for entry in container["env"])
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}
    assert len(images) == 1
    assert cluster["rayVersion"] in next(iter(images))
    assert "nvidia.com/gpu" in worker["template"]["spec"]["containers"][0]["resources"]["limits"]


def test_the_entrypoint_of_the_ray_job_is_a_file_of_its_head() -> None:
    config_map, job = ray_job()
    shell, script = job["spec"]["entrypoint"].split()
    pod = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    paths = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    assert (shell, script) == ("bash", f"{paths['start']}/start.sh")
    assert f"wsl-sweep run {paths['file']}/sweep.yaml " in config_map["data"]["start.sh"]
    given = {entry["name"] for entry in pod["containers"][0]["env"]}
    assert set(re.findall(r'"\$([A-Z_]+)"', config_map["data"]["start.sh"])) <= given


@pytest.mark.parametrize(
    ("sweeps", "expected"),
    [
        ("[]", "run /etc/wsl-sweep/sweep.yaml --name alpha --storage s3://bucket/a b --tracking-uri http://mlflow"),
        ('[{"sweep": "other", "status": "finished"}]', "run /etc/wsl-sweep/sweep.yaml --name alpha"),
        ('[{"sweep": "alpha", "status": "running"}]', "resume alpha --storage s3://bucket/a b"),
        ('[{"sweep": "alpha", "status": "stopped"}]', "resume alpha --storage s3://bucket/a b"),
        ('[{"sweep": "alpha", "status": "finished"}]', None),
    ],
    ids=["nothing", "another", "driver-died", "stopped", "finished"],
)
def test_a_ray_job_runs_or_goes_on(sweeps: str, expected: str | None, tmp_path: Path) -> None:
    script = ray_job()[0]["data"]["start.sh"]
    stub(tmp_path / "bin", "wsl-sweep", 'case $1 in status) echo "$SWEEPS" ;; *) echo "STARTED $*" ;; esac')
    environment = {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "SWEEPS": sweeps,
        "NAME": "alpha",
        "STORAGE": "s3://bucket/a b",
        "TRACKING_URI": "http://mlflow",
    }
    done = subprocess.run(
        ["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=20, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    started = [line.removeprefix("STARTED ") for line in done.stdout.splitlines() if line.startswith("STARTED ")]
    assert len(started) == (0 if expected is None else 1)
    assert all(line.startswith(str(expected)) for line in started)


def test_a_storage_that_does_not_answer_begins_no_sweep(tmp_path: Path) -> None:
    stub(tmp_path / "bin", "wsl-sweep", 'case $1 in status) exit 2 ;; *) echo "STARTED $*" ;; esac')
    environment = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "NAME": "a", "STORAGE": "b", "TRACKING_URI": "c"}
    done = subprocess.run(
        ["bash", "-c", ray_job()[0]["data"]["start.sh"]],
        env=environment,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode != 0
    assert "STARTED" not in done.stdout


# MLflow


def test_the_tracking_server_is_this_machine_s_alone_until_told_otherwise() -> None:
    (compose,) = documents(CLUSTER / "mlflow" / "docker-compose.yaml")
    server, database = compose["services"]["mlflow"], compose["services"]["postgres"]
    assert server["ports"] == ["${MLFLOW_BIND:-127.0.0.1}:${MLFLOW_PORT:-5000}:5000"]
    assert "ports" not in database
    assert "--serve-artifacts --artifacts-destination" in server["command"]
    assert server["environment"]["MLFLOW_BACKEND_STORE_URI"].startswith("postgresql://mlflow@postgres")
    assert database["environment"]["POSTGRES_PASSWORD"].startswith("${POSTGRES_PASSWORD:?")


def test_the_example_of_an_environment_names_what_is_read_and_no_password() -> None:
    example = (CLUSTER / "mlflow" / "env.example").read_text()
    values = dict(line.split("=", 1) for line in example.splitlines() if line and not line.startswith("#"))
    assert values["POSTGRES_PASSWORD"] == ""
    assert values["MLFLOW_BIND"] == "127.0.0.1"
    read = set(re.findall(r"\$\{(\w+)", (CLUSTER / "mlflow" / "docker-compose.yaml").read_text()))
    assert set(values) == read


def test_the_options_given_to_the_tracking_server_are_mlflow_s() -> None:
    (compose,) = documents(CLUSTER / "mlflow" / "docker-compose.yaml")
    used = set(re.findall(r"--[a-z-]+", compose["services"]["mlflow"]["command"]))
    documented = re.search(r"^mlflow server .*?(?=```)", DOCS.read_text(), re.DOTALL | re.MULTILINE)
    assert documented is not None
    from mlflow.cli import server

    known = {name for parameter in server.params for name in parameter.opts}
    assert used | set(re.findall(r"--[a-z-]+", documented[0])) <= known


# Slurm


def assert_bash(text: str) -> None:
    done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def stub(folder: Path, name: str, body: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
    (folder / name).chmod(0o755)


class Job:
    """A dry run of the Slurm script: programs of the cluster are stubs that write down how they were called.

    The stub of a Ray node stays until it is ended; that of the driver waits for those, and is then ``driver``, bash.
    """

    def __init__(self, folder: Path, driver: str, nodes: str = "n1 n2 n3") -> None:
        self.log, self.home, self.storage = folder / "calls", folder / "a home", folder / "the runs"
        self.log.touch()
        self.home.mkdir()
        programs = folder / "venv" / "bin"
        programs.parent.mkdir()
        note = f'printf "%s\\n" "${{0##*/}} $*" >> "{self.log}"'
        token = f'stat -c "token %a %s" "$RAY_AUTH_TOKEN_PATH" >> "{self.log}"'
        stub(programs, "srun", f"{note}\n{token}\nexec sleep 60")
        stub(programs, "ray", "exit 0")
        stub(programs, "hostname", "echo 10.0.0.1 10.0.0.2")
        stub(programs, "scontrol", f"{note}\nif [ $1 = show ]; then printf '%s\\n' {nodes}; fi")
        started = f'[ "$(grep -c ^token "{self.log}")" -ge {min(len(nodes.split()), 2)} ]'
        stub(programs, "wsl-sweep", f"until {started}; do sleep 0.02; done\n{note}\n{driver}")
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "VENV": str(folder / "venv"),
            "STORAGE": str(self.storage),
            "FILE": "my file.yaml",
            "NAME": "alpha",
            "TRACKING_URI": "http://mlflow:5000",
            "SLURM_JOB_ID": "123456",
            "SLURM_JOB_NODELIST": "n[1-3]",
            "SLURM_CPUS_PER_TASK": "16",
            "SLURM_GPUS_ON_NODE": "4",
        }

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", str(CLUSTER / "slurm.sh")],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self) -> tuple[int, str]:
        process = self.start()
        output, _ = process.communicate(timeout=20)
        return process.returncode, output

    def calls(self, program: str) -> list[str]:
        return [line for line in self.log.read_text().splitlines() if line.startswith(f"{program} ")]

    def wait_until(self, there: Callable[[], object]) -> None:
        until = time.monotonic() + 15
        while not there():
            assert time.monotonic() < until, self.log.read_text()
            time.sleep(0.02)

    def wait_for_driver(self) -> None:
        self.wait_until((self.home / "driver").exists)


WAITS_FOR_TERM = """
asked=
trap 'asked=1; echo SIGTERM >> "$HOME/driver"' TERM
touch "$HOME/driver"
while [ -z "$asked" ]; do sleep 0.05; done
for _ in 1 2 3 4 5 6 7 8; do sleep 0.1; done
echo saved >> "$HOME/driver"
exit 143
"""


def test_the_slurm_script_is_bash_and_asks_to_be_started_again() -> None:
    text = (CLUSTER / "slurm.sh").read_text()
    assert_bash(text)
    asked = re.findall(r"^#SBATCH (\S+)", text, re.MULTILINE)
    assert {"--requeue", "--signal=B:TERM@90", "--no-kill"} <= set(asked)
    first_command = next(line for line in text.splitlines() if line and not line.startswith("#"))
    assert text.rindex("\n#SBATCH") < text.index(first_command), "Slurm reads no #SBATCH behind the first command"


def test_a_first_start_runs_the_sweep(tmp_path: Path) -> None:
    job = Job(tmp_path, driver='echo "$RAY_ADDRESS $RAY_AUTH_MODE"')
    status, output = job.run()
    assert (status, output) == (0, "10.0.0.1:23456 token\n")
    assert job.calls("wsl-sweep") == [
        f"wsl-sweep run my file.yaml --name alpha --storage {job.storage} --tracking-uri http://mlflow:5000 "
        "--address 10.0.0.1:23456"
    ]
    head = next(line for line in job.calls("srun") if " --head " in line)
    workers = next(line for line in job.calls("srun") if "ray start --address=10.0.0.1:23456" in line)
    assert "--nodes=1 --ntasks=1 --nodelist=n1 ray start" in head
    assert "--num-cpus=14" in head
    assert "--nodes=2 --ntasks=2 --exclude=n1 ray start" in workers
    assert "--num-gpus=4" in head
    assert "--num-gpus=4" in workers
    assert set(job.calls("token")) == {"token 600 64"}
    assert list(job.home.iterdir()) == [], "the token goes with the job"
    assert not any("requeue" in line for line in job.calls("scontrol"))


def test_a_job_of_one_node_has_no_workers_beside_the_head(tmp_path: Path) -> None:
    job = Job(tmp_path, driver="exit 0", nodes="n1")
    assert job.run() == (0, "")
    assert len(job.calls("srun")) == 1


def test_a_job_that_is_started_again_resumes(tmp_path: Path) -> None:
    job = Job(tmp_path, driver="exit 0")
    (job.storage / "alpha").mkdir(parents=True)
    (job.storage / "alpha" / "plan.json").write_text("{}")
    assert job.run() == (0, "")
    assert job.calls("wsl-sweep") == [
        f"wsl-sweep resume alpha --storage {job.storage} --tracking-uri http://mlflow:5000 --address 10.0.0.1:23456"
    ]


def test_sigterm_has_the_driver_save_and_the_job_started_again(tmp_path: Path) -> None:
    job = Job(tmp_path, driver=WAITS_FOR_TERM)
    process = job.start()
    job.wait_for_driver()
    process.send_signal(signal.SIGTERM)
    job.wait_until(lambda: "SIGTERM" in (job.home / "driver").read_text())
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 143, output
    told = (job.home / "driver").read_text().split()
    assert told == ["SIGTERM", "saved"], "it is told once, because a second SIGTERM ends it at once, and waited for"
    assert job.calls("scontrol")[-1] == "scontrol requeue 123456"
    assert [path.name for path in job.home.iterdir()] == ["driver"], "the token goes with the job"


def test_a_driver_that_finishes_in_spite_of_sigterm_is_not_started_again(tmp_path: Path) -> None:
    job = Job(tmp_path, driver=WAITS_FOR_TERM.replace("exit 143", "exit 0"))
    process = job.start()
    job.wait_for_driver()
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 0, output
    assert not any("requeue" in line for line in job.calls("scontrol"))


def test_a_mistake_in_the_file_is_not_tried_again(tmp_path: Path) -> None:
    job = Job(tmp_path, driver="exit 2")
    assert job.run()[0] == 2
    assert not any("requeue" in line for line in job.calls("scontrol"))


def test_sigterm_before_there_is_a_driver_starts_none(tmp_path: Path) -> None:
    job = Job(tmp_path, driver="exit 0")
    stub(tmp_path / "venv" / "bin", "ray", "exit 1")
    process = job.start()
    job.wait_until(lambda: job.calls("token"))
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 143, output
    assert job.calls("wsl-sweep") == []
    assert job.calls("scontrol")[-1] == "scontrol requeue 123456"


def test_slurm_without_a_tracking_server_or_a_folder_says_so(tmp_path: Path) -> None:
    job = Job(tmp_path, driver="exit 0")
    job.environment["STORAGE"] = "s3://bucket/runs"
    status, output = job.run()
    assert (status, output) == (
        2,
        "slurm.sh: STORAGE must be a folder; for an object store see start.sh in rayjob.yaml\n",
    )
    del job.environment["TRACKING_URI"]
    status, output = job.run()
    assert status != 0
    assert "set TRACKING_URI to the MLflow server" in output
    assert job.calls("srun") == []
