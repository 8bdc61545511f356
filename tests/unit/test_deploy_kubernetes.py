"""The manifests: as Kubernetes' own types say, of one piece, and as closed as the compose file."""

import importlib
import shutil
import subprocess
from functools import cache

import msgspec
import pytest
import yaml

from scheduler_project import entry, probes
from scheduler_project.local import fleet
from tests.alarms import PROMETHEUS
from tests.deployment import PINNED, ROOT, settings_read
from tests.kustomize import rendered

FOLDER = ROOT / "deploy" / "kubernetes"
OVERLAYS = ("overlays/production", "overlays/staging")
ALL = (*OVERLAYS, "canary", "migrate", "check", "monitoring")
# Of KEDA and of the Prometheus Operator: their types are not Kubernetes'. Read by hand in the reference of each (KEDA's
# ScaledObject specification, the operator's API reference): the members that ours may have, with the type of each.
_RELABEL = [{"sourceLabels": [str], "regex": str, "action": str}]
_LABELS = {"matchLabels": {str: str}}
FOREIGN = {
    ("keda.sh/v1alpha1", "ScaledObject"): {
        "scaleTargetRef": {"name": str},
        "minReplicaCount": int,
        "maxReplicaCount": int,
        "pollingInterval": int,
        "cooldownPeriod": int,
        # Every value is text there, numbers too.
        "triggers": [{"type": str, "metricType": str, "metadata": {str: str}}],
    },
    ("monitoring.coreos.com/v1", "PodMonitor"): {
        "jobLabel": str,
        "selector": _LABELS,
        "podMetricsEndpoints": [{"port": str, "path": str, "metricRelabelings": _RELABEL}],
    },
    ("monitoring.coreos.com/v1alpha1", "ScrapeConfig"): {
        "jobName": str,
        "metricsPath": str,
        "staticConfigs": [{"targets": [str]}],
        "metricRelabelings": _RELABEL,
    },
}
JOBS = {each["job_name"] for each in yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["scrape_configs"]}
ZONE, HOST = "topology.kubernetes.io/zone", "kubernetes.io/hostname"


@cache
def manifests(name):
    return rendered(FOLDER / name)


def of_kind(name, *kinds):
    return [each for each in manifests(name) if each["kind"] in kinds]


def pods():
    """Every workload with what its pods are."""
    for name in (OVERLAYS[0], "canary", "migrate", "check"):
        for each in of_kind(name, "Deployment", "Job"):
            yield each, each["spec"]["template"]


def container(template):
    (only,) = template["spec"]["containers"]
    return only


def matches(selector, labels):
    return selector.items() <= labels.items()


@pytest.mark.parametrize("name", ALL)
def test_each_manifest_is_as_the_types_of_kubernetes_say(name):
    """Read into them and written again nothing is lost: no field that there is not, none of another type."""
    for each in manifests(name):
        if (each["apiVersion"], each["kind"]) in FOREIGN:
            assert is_of(FOREIGN[each["apiVersion"], each["kind"]], each["spec"]), each["metadata"]["name"]
            continue
        group, _, version = each["apiVersion"].rpartition("/")
        module = importlib.import_module(f"lightkube.models.{group.split('.')[0] or 'core'}_{version}")
        read = msgspec.convert(each, getattr(module, each["kind"]))
        assert _without_empty(each) == _without_empty(msgspec.to_builtins(read)), each["metadata"]["name"]


def is_of(wanted, found):
    """Whether all that is found has its place in what is wanted: types, lists of one, members by name or all alike."""
    if isinstance(wanted, type):
        return type(found) is wanted
    if isinstance(wanted, list):
        return bool(wanted) and isinstance(found, list) and all(is_of(wanted[0], each) for each in found)
    if not isinstance(found, dict):
        return False
    return all(is_of(wanted.get(name, wanted.get(str, [])), each) for name, each in found.items())


def test_what_has_no_place_in_a_foreign_type_is_found():
    wanted = FOREIGN["keda.sh/v1alpha1", "ScaledObject"]
    trigger = {"type": "prometheus", "metadata": {"threshold": "5"}}
    assert is_of(wanted, {"minReplicaCount": 2, "triggers": [trigger]})
    for wrong in (
        {"minReplicas": 2},
        {"minReplicaCount": "2"},
        {"triggers": trigger},
        {"triggers": [{**trigger, "metadata": {"threshold": 5}}]},
    ):
        assert not is_of(wanted, wrong), wrong


def test_jobs_are_called_as_the_rules_ask():
    """Else a PodMonitor's job is NAMESPACE/NAME, and no alarm about web servers or streams would ever be heard."""
    for each in of_kind("monitoring", "PodMonitor"):
        assert each["spec"]["jobLabel"] in each["spec"]["selector"]["matchLabels"]
        job = each["spec"]["selector"]["matchLabels"][each["spec"]["jobLabel"]]
        assert job in JOBS
    (whole,) = of_kind("monitoring", "ScrapeConfig")
    assert whole["spec"]["jobName"] in JOBS


def _without_empty(value):
    """Members that say nothing are left out when they are written."""
    if isinstance(value, dict):
        kept = {name: _without_empty(each) for name, each in value.items()}
        return {name: each for name, each in kept.items() if each not in (None, {}, [])}
    return [_without_empty(each) for each in value] if isinstance(value, list) else value


@pytest.mark.skipif(
    not shutil.which("kubectl"), reason="No kubectl found: our own reading of kustomize is not compared"
)
@pytest.mark.parametrize("name", ALL)
def test_kustomize_renders_the_same(name):
    done = subprocess.run(
        ["kubectl", "kustomize", str(FOLDER / name)], capture_output=True, text=True, timeout=120, check=False
    )
    if done.returncode and "unknown command" in done.stderr:
        pytest.skip("kubectl is too old to know kustomize")
    assert done.returncode == 0, done.stderr

    def sorted_(found):
        return sorted(found, key=lambda each: (each["kind"], each["metadata"]["name"]))

    assert sorted_(yaml.safe_load_all(done.stdout)) == sorted_(manifests(name))


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_process_is_there_and_at_least_twice(name):
    commands = {}
    for each in of_kind(name, "Deployment"):
        args = container(each["spec"]["template"])["args"]
        entry._parser().parse_args(args)
        commands[" ".join(args)] = each["spec"]["replicas"]
    assert commands.keys() == {"web", "streams", "beat", *(f"worker {queue}" for queue in fleet.CONCURRENCY)}
    assert min(commands.values()) >= 2


def test_every_selector_finds_its_pods():
    deployments = of_kind(OVERLAYS[0], "Deployment")
    labels = {each["metadata"]["name"]: each["spec"]["template"]["metadata"]["labels"] for each in deployments}
    for each in (*deployments, *of_kind("canary", "Deployment")):
        own = each["spec"]["template"]["metadata"]["labels"]
        assert matches(each["spec"]["selector"]["matchLabels"], own)
        for spread in each["spec"]["template"]["spec"]["topologySpreadConstraints"]:
            assert spread["labelSelector"]["matchLabels"] == each["spec"]["selector"]["matchLabels"]
    budgets = of_kind(OVERLAYS[0], "PodDisruptionBudget")
    assert {each["metadata"]["name"] for each in budgets} == labels.keys()
    for each in budgets:
        found = [name for name, own in labels.items() if matches(each["spec"]["selector"]["matchLabels"], own)]
        assert found == [each["metadata"]["name"]]
    (canary,) = of_kind("canary", "Deployment")
    of_canary = canary["spec"]["template"]["metadata"]["labels"]
    # Nobody owns another's pods, and the Service leads to both.
    assert not any(matches(each["spec"]["selector"]["matchLabels"], of_canary) for each in deployments)
    services = {
        each["metadata"]["name"]: each["spec"]
        for each in (*of_kind(OVERLAYS[0], "Service"), *of_kind("canary", "Service"))
    }
    assert matches(services["web"]["selector"], of_canary)
    assert matches(services["web"]["selector"], labels["web"])
    assert matches(services["web-canary"]["selector"], of_canary)
    assert not matches(services["web-canary"]["selector"], labels["web"])
    assert matches(services["streams"]["selector"], labels["streams"])
    assert not any(matches(services["nobody"]["selector"], own) for own in labels.values())


def test_every_deployment_is_spread_over_zones_and_machines():
    for each in (*of_kind(OVERLAYS[0], "Deployment"), *of_kind("canary", "Deployment")):
        spread = {c["topologyKey"]: c for c in each["spec"]["template"]["spec"]["topologySpreadConstraints"]}
        assert spread.keys() == {ZONE, HOST}
        assert (spread[ZONE]["whenUnsatisfiable"], spread[ZONE]["maxSkew"]) == ("DoNotSchedule", 1)
        # Else no pod could be started in the place of those of a lost zone.
        assert spread[ZONE]["nodeTaintsPolicy"] == "Honor"


def test_probes_ask_for_what_there_is():
    for each, template in pods():
        if each["kind"] == "Job":
            continue
        told = container(template)
        role = told["args"][0]
        for name in ("startupProbe", "livenessProbe", *(["readinessProbe"] if "ports" in told else [])):
            probe = told[name]
            if role in ("web", "streams"):
                assert probe["httpGet"]["port"] in [port["name"] for port in told["ports"]]
                assert {h["name"]: h["value"] for h in probe["httpGet"]["httpHeaders"]} == probes._HEADERS
                ready = probes._ASKED[role][1] if name == "readinessProbe" else "/healthz"
                assert probe["httpGet"]["path"] == ready
            else:
                assert probe["exec"]["command"] == ["python", "-m", "scheduler_project.entry", "probe", *told["args"]]
    ports = {role: port for role, (port, _) in probes._ASKED.items()}
    for each in of_kind(OVERLAYS[0], "Deployment"):
        for port in container(each["spec"]["template"]).get("ports", []):
            assert port["containerPort"] == ports[each["metadata"]["name"]]


def test_pods_are_as_the_restricted_standard_wants_them():
    """Pod Security Standards, “restricted”, and the image's own rules: read-only, its own user, no token."""
    for each, template in pods():
        spec, told, name = template["spec"], container(template), each["metadata"]["name"]
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["runAsUser"] == 10001, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert told["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name
        assert spec["automountServiceAccountToken"] is False, name
        assert {"requests", "limits"} <= told["resources"].keys(), name
        assert PINNED.fullmatch(told["image"]), name
        assert "/tmp" in {mount["mountPath"] for mount in told["volumeMounts"]}, name
        assert {volume["name"] for volume in spec["volumes"]} == {mount["name"] for mount in told["volumeMounts"]}, name
        assert all("emptyDir" in volume for volume in spec["volumes"]), name
    (namespace,) = of_kind(OVERLAYS[0], "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_processes_get_the_time_that_they_need_to_end():
    for each, template in pods():
        if each["kind"] == "Deployment":
            told = container(template)
            pause = told.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
            assert template["spec"]["terminationGracePeriodSeconds"] >= fleet.DRAIN_S + pause + 5, each["metadata"][
                "name"
            ]


def test_what_is_referred_to_is_there_and_settings_are_known():
    for name in OVERLAYS:
        (settings,) = of_kind(name, "ConfigMap")
        assert settings["data"].keys() <= settings_read()
        accounts = {each["metadata"]["name"] for each in of_kind(name, "ServiceAccount")}
        for each, template in pods():
            assert template["spec"]["serviceAccountName"] in accounts, each["metadata"]["name"]
            for source in container(template)["envFrom"]:
                if "configMapRef" in source:
                    assert source["configMapRef"]["name"] == settings["metadata"]["name"]
        names = {each["metadata"]["name"] for each in of_kind(name, "Deployment")}
        scaled = of_kind(name, "ScaledObject", "HorizontalPodAutoscaler")
        assert {each["spec"]["scaleTargetRef"]["name"] for each in scaled} <= names
        services = {each["metadata"]["name"] for each in of_kind(name, "Service")}
        (ingress,) = of_kind(name, "Ingress")
        (rule,) = ingress["spec"]["rules"]
        assert {path["backend"]["service"]["name"] for path in rule["http"]["paths"]} == services
        assert ingress["spec"]["tls"][0]["hosts"] == [rule["host"]]
        assert rule["host"] in settings["data"]["ALLOWED_HOSTS"].split(",")
        assert settings["data"]["PUBLIC_URL"] == f"https://{rule['host']}"
    # Every manifest of ours lives in the one namespace.
    for name in ALL:
        for each in manifests(name):
            assert each["kind"] == "Namespace" or each["metadata"]["namespace"] == "notification-scheduler"


def test_senders_are_scaled_by_a_figure_that_there_is():
    metrics = (ROOT / "delivery" / "metrics.py").read_text()
    for each in of_kind(OVERLAYS[0], "ScaledObject"):
        (trigger,) = each["spec"]["triggers"]
        queue = each["metadata"]["name"].removeprefix("worker-").replace("-", "_")
        assert queue in fleet.CONCURRENCY
        assert trigger["metadata"]["query"] == f'max(notifications_oldest_due_seconds{{channel="{queue}"}})'
        assert '"notifications_oldest_due_seconds"' in metrics
        assert each["spec"]["minReplicaCount"] == 2


def test_all_is_closed_but_what_is_named():
    policies = {each["metadata"]["name"]: each["spec"] for each in of_kind(OVERLAYS[0], "NetworkPolicy")}
    assert policies["nothing"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    (out,) = [rule for rule in policies["out"]["egress"] if "to" in rule]
    # Where clouds tell machines who they are.
    assert out["to"][0]["ipBlock"]["except"] == ["169.254.0.0/16"]
    (check,) = of_kind("check", "Job")
    assert container(check["spec"]["template"])["args"][:2] == ["manage", "smoke"]
    assert (
        policies["check-into-web"]["ingress"][0]["from"][0]["podSelector"]["matchLabels"].items()
        <= check["spec"]["template"]["metadata"]["labels"].items()
    )
