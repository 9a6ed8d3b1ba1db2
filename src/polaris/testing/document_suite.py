"""The contract of `DocumentStorageBackend` as tests: every engine passes all of them.

Derive a class named `Test...` from `DocumentSuite` and give it a fixture `backend`: a connected, empty backend. Its
engine has an attribute `clock` that it asks at every call: the tests of expiry put another clock there for a while.
"""

from __future__ import annotations

from polaris.testing._document_bulk_promises import BulkPromises
from polaris.testing._document_core_promises import SingleDocumentPromises
from polaris.testing._document_expiry_promises import ExpiryPromises
from polaris.testing._document_index_promises import IndexPromises
from polaris.testing._document_page_promises import PagePromises
from polaris.testing._document_query_promises import QueryPromises

__all__ = ["DocumentSuite"]


class DocumentSuite(SingleDocumentPromises, QueryPromises, PagePromises, BulkPromises, IndexPromises, ExpiryPromises):
    """All promises of the document port."""
