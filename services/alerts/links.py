"""Addresses of the console that messages point to. Pure."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import quote


class Links(NamedTuple):
    """`console`: the console's public address, without a slash at its end."""

    console: str

    def app(self, client_id: str) -> str:
        """The application's page."""
        return f"{self.console}/apps/{quote(client_id)}" if client_id else self.console

    def service_app(self, review_id: str) -> str:
        """The applicant's page of what was applied for."""
        return f"{self.console}/service-apps/{quote(review_id)}"

    def review(self, review_id: str) -> str:
        """The reviewers' page of the same."""
        return f"{self.console}/reviews/{quote(review_id)}"

    def unsubscribe(self, token: str) -> str:
        """Where a reader ends mails; `token` says whose."""
        return f"{self.console}/unsubscribe/{quote(token, safe='')}"
