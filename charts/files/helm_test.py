"""What `helm test` runs in a pod: does the API know runs, and is the operator well?"""

import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.request

ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
PATIENCE_S = 30.0
"""The Service by which the operator is asked is as new as this pod: nodes may not know it yet."""


def get(url: str, context: ssl.SSLContext | None = None, token: str = "") -> bytes:
    """Returns the answer to a GET, which no proxy is asked for."""
    request = urllib.request.Request(url)
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    handlers = [urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)]
    with urllib.request.build_opener(*handlers).open(request, timeout=10) as answer:
        found: bytes = answer.read()
    return found


def get_patiently(url: str) -> bytes:
    """Returns the answer to a GET from a server that may not be reached for `PATIENCE_S`."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return get(url)
        except urllib.error.HTTPError:
            raise
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def main() -> None:
    """Ends with an error where something is missing."""
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    host = f"[{host}]" if ":" in host else host
    context = ssl.create_default_context(cafile=f"{ACCOUNT}/ca.crt")
    with open(f"{ACCOUNT}/token", encoding="utf-8") as file:
        token = file.read()
    try:
        answer = get(f"https://{host}:{port}/apis/arlow.dev/v1alpha1", context, token)
    except OSError as error:
        sys.exit(f"the API knows no ArlowPretrain: {error}; is crds.enabled on?")
    names = [each["name"] for each in json.loads(answer)["resources"]]
    if "arlowpretrains" not in names:
        sys.exit(f"the API knows no arlowpretrains of arlow.dev/v1alpha1, only {names}")
    print("ArlowPretrain is there")
    health = sys.argv[1]
    try:
        print("the operator is well:", get_patiently(health).decode())
    except OSError as error:
        sys.exit(f"the operator does not answer at {health}: {error}; see its log")


if __name__ == "__main__":
    main()
