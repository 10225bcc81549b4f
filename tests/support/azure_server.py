"""An in-process server of Azure's Blob service.

https://learn.microsoft.com/rest/api/storageservices/blob-service-rest-api
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree

from support.object_servers import DATE, Handler, serving

ACCOUNT = "devstoreaccount1"
KEY = "YXJsb3ctdGVzdA=="
PAGE = 5
"""A listing's page, smaller than any provider's, so that every test reads several."""


class _Handler(Handler):
    signatures: set[str]
    """Shared access signatures that are valid now; where there are none, nothing is checked."""

    def _allowed(self, generation: int) -> bool:
        if self.headers.get("If-None-Match") == "*" and generation:
            return False
        expected = self.headers.get("If-Match")
        return expected is None or expected == f'"{generation:#x}"'

    def _name(self) -> str:
        """CONTAINER/NAME."""
        return unquote(urlsplit(self.path).path).removeprefix(f"/{ACCOUNT}/")

    def _refused(self) -> bool:
        if not self.signatures or self.query.get("sig") in self.signatures:
            return False
        self.body()
        self._fail(403, "AuthenticationFailed")
        return True

    def do_PUT(self) -> None:
        if self._refused():
            return
        generation = self.objects.put(self._name(), self.body(), self._allowed)
        if generation is not None:
            self.answer(201, ETag=f'"{generation:#x}"', Last_Modified=DATE)
        elif self.headers.get("If-None-Match"):
            self._fail(409, "BlobAlreadyExists")
        else:
            self._fail(412, "ConditionNotMet")

    def do_GET(self) -> None:
        if self._refused():
            return
        if self.query.get("comp") == "list":
            self._list()
            return
        found = self.objects.get(self._name())
        if found is None:
            self._fail(404, "BlobNotFound")
            return
        data, generation = found
        self.answer_content(
            data,
            self.headers.get("x-ms-range") or self.headers.get("Range"),
            ETag=f'"{generation:#x}"',
            Last_Modified=DATE,
            Content_Type="application/octet-stream",
            x_ms_blob_type="BlockBlob",
            Accept_Ranges="bytes",
        )

    do_HEAD = do_GET

    def do_DELETE(self) -> None:
        if self._refused():
            return
        if self.objects.get(self._name()) is None:
            self._fail(404, "BlobNotFound")
        elif self.objects.delete(self._name(), self._allowed):
            self.answer(202)
        else:
            self._fail(412, "ConditionNotMet")

    def _list(self) -> None:
        container = self._name()
        query = self.query
        names, folders, following = self.objects.page(
            f"{container}/{query.get('prefix', '')}",
            query.get("delimiter", ""),
            query.get("marker", ""),
            PAGE,
        )
        root = ElementTree.Element("EnumerationResults", ContainerName=container)
        # The client asks for the next page with the prefix and the delimiter of this answer.
        ElementTree.SubElement(root, "Prefix").text = query.get("prefix", "")
        if "delimiter" in query:
            ElementTree.SubElement(root, "Delimiter").text = query["delimiter"]
        blobs = ElementTree.SubElement(root, "Blobs")
        for name in names:
            data, generation = self.objects.get(name) or (b"", 0)
            blob = ElementTree.SubElement(blobs, "Blob")
            ElementTree.SubElement(blob, "Name").text = name.removeprefix(f"{container}/")
            properties = ElementTree.SubElement(blob, "Properties")
            for key, value in {
                "Last-Modified": DATE,
                "Etag": f"{generation:#x}",
                "Content-Length": str(len(data)),
                "Content-Type": "application/octet-stream",
                "BlobType": "BlockBlob",
            }.items():
                ElementTree.SubElement(properties, key).text = value
        for folder in folders:
            blob = ElementTree.SubElement(blobs, "BlobPrefix")
            ElementTree.SubElement(blob, "Name").text = folder.removeprefix(f"{container}/")
        ElementTree.SubElement(root, "NextMarker").text = following
        self.answer(200, ElementTree.tostring(root, "utf-8"), Content_Type="application/xml")

    def _fail(self, status: int, code: str) -> None:
        text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>"
        self.answer(status, text.encode(), x_ms_error_code=code, Content_Type="application/xml")


@contextmanager
def azure_server(signatures: set[str] | None = None) -> Iterator[dict[str, Any]]:
    """Yields the options of a store at az://, with an account's key.

    With `signatures` the server takes these shared access signatures and no others; those in the
    set at the time of a request count.
    """
    with serving(_Handler, signatures=signatures if signatures is not None else set()) as url:
        endpoint = f"BlobEndpoint={url}/{ACCOUNT};"
        name = f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};"
        yield {"connection_string": f"{name}AccountKey={KEY};{endpoint}"}
