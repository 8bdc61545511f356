"""What ``kubectl apply -k`` would apply: as much of kustomize as our files use, and no more."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

Manifest = dict[str, Any]
_KNOWN = {"apiVersion", "kind", "resources", "namespace", "images", "replicas", "patches"}
# Without a namespace of their own.
_CLUSTER_WIDE = {"Namespace"}


def rendered(folder: Path) -> list[Manifest]:
    """In the order of the files. Raises ValueError for what it does not know, KeyError for a patch of nothing."""
    said = yaml.safe_load((folder / "kustomization.yaml").read_text())
    if unknown := said.keys() - _KNOWN:
        raise ValueError(f"{folder}: {unknown}")
    found: list[Manifest] = []
    for each in said["resources"]:
        path = (folder / each).resolve()
        found += rendered(path) if path.is_dir() else list(yaml.safe_load_all(path.read_text()))
    found = deepcopy(found)
    for manifest in found:
        if "namespace" in said and manifest["kind"] not in _CLUSTER_WIDE:
            manifest["metadata"]["namespace"] = said["namespace"]
    for patch in said.get("patches", []):
        _patch(found, patch)
    for replicas in said.get("replicas", []):
        _only(found, {"kind": "Deployment", "name": replicas["name"]})["spec"]["replicas"] = replicas["count"]
    for image in said.get("images", []):
        _name_images(found, image)
    return found


def _only(found: list[Manifest], target: Manifest) -> Manifest:
    matching = [m for m in found if (m["kind"], m["metadata"]["name"]) == (target["kind"], target["name"])]
    if len(matching) != 1:
        raise ValueError(f"{target} is there {len(matching)} times")
    return matching[0]


def _patch(found: list[Manifest], patch: Manifest) -> None:
    """RFC 6902, ``replace`` of what is there."""
    manifest = _only(found, patch["target"])
    for step in yaml.safe_load(patch["patch"]):
        if step["op"] != "replace":
            raise ValueError(step)
        *way, last = (int(part) if part.isdecimal() else part for part in step["path"].lstrip("/").split("/"))
        place: Any = manifest
        for part in way:
            place = place[part]
        if place[last] != step["value"]:  # KeyError: there must be something to be replaced
            place[last] = step["value"]


def _name_images(found: list[Manifest], image: Manifest) -> None:
    for manifest in found:
        for container in manifest.get("spec", {}).get("template", {}).get("spec", {}).get("containers", []):
            if container["image"] == image["name"]:
                container["image"] = f"{image['newName']}:{image['newTag']}"
