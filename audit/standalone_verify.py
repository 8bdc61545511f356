"""Is a downloaded export of the audit whole and signed? Needs nothing of the service: only Python and ``cryptography``.

    python standalone_verify.py FOLDER PUBLIC_KEY [PUBLIC_KEY ...]

FOLDER holds the objects 000000000001.ndjson and so on, in their first versions. PUBLIC_KEY is one that you wrote down,
32 bytes in hexadecimal digits. Exits 1 and names the first seal that is not what was signed.
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def check(path: Path, keys: dict[str, Ed25519PublicKey], before: dict[str, Any]) -> dict[str, Any]:
    """The seal in the file, which must follow the one ``before`` it. Raises ValueError, which says what is wrong."""
    first, *rows, end = path.read_bytes().split(b"\n")
    seal: dict[str, Any] = json.loads(first)
    parsed = [json.loads(row) for row in rows]
    order = [(row["tx"], row["id"]) for row in parsed]
    hashes = b"".join(hashlib.sha256(row).digest() for row in rows)
    ids = ",".join(str(row["id"]) for row in parsed).encode()
    parts = ["notification_audit 1", seal["number"], seal["previous"], seal["first_tx"], seal["end_tx"], len(rows)]
    parts += [hashlib.sha256(ids).hexdigest(), hashlib.sha256(hashes).hexdigest(), seal["sealed_at"], seal["key_id"]]
    digest = hashlib.sha256("\n".join(map(str, parts)).encode())
    if end or digest.hexdigest() != seal["digest"]:
        raise ValueError("its rows or its seal were changed")
    if path.name != f"{seal['number']:012}.ndjson":
        raise ValueError(f"it holds seal {seal['number']}")
    if seal["key_id"] not in keys:
        raise ValueError(f"it is signed by an unknown key, {seal['key_id']}")
    keys[seal["key_id"]].verify(bytes.fromhex(seal["signature"]), digest.digest())
    if before and (seal["number"], seal["previous"], seal["first_tx"]) != (
        before["number"] + 1, before["digest"], before["end_tx"]
    ):  # fmt: skip
        raise ValueError(f"it does not follow seal {before['number']}: one is missing, or another was signed")
    if order != sorted(order) or any(not seal["first_tx"] <= tx < seal["end_tx"] for tx, _ in order):
        raise ValueError("its rows are not in the order of their transactions")
    return {**seal, "rows": len(rows)}  # what it says there itself is not signed


def main(folder: str, *given: str) -> int | str:
    raw = [bytes.fromhex(each) for each in given]
    keys = {hashlib.sha256(each).hexdigest()[:16]: Ed25519PublicKey.from_public_bytes(each) for each in raw}
    first: dict[str, Any] = {}
    seal: dict[str, Any] = {}
    rows = 0
    for path in sorted(Path(folder).glob("*.ndjson")):
        try:
            seal = check(path, keys, seal)
        except InvalidSignature:
            return f"{path.name}: its signature is wrong"
        except (KeyError, TypeError, ValueError) as error:
            return f"{path.name}: {error}"
        first, rows = first or seal, rows + seal["rows"]
    if not seal:
        return f"There is no export in {folder}."
    print(f"Whole and signed: {rows} rows under the seals {first['number']} to {seal['number']}.")  # noqa: T201
    print(f"The last was made at {seal['sealed_at']}, with the digest {seal['digest']}.")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]) if len(sys.argv) > 2 else __doc__)
