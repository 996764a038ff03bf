"""Contacts and groups as accounts change and ask for them. Subjects alerts.commands.<Name>, alerts.queries.<Name>."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from services.alerts import contacts, groups, people_queries, verification
from services.alerts.cards import addresses
from services.alerts.serving import Started
from services.alerts.tokens import read_token
from shared.answering import Answering, snapshot
from shared.clock import Clock
from shared.commands.base import Command, Query, Reply
from shared.commands.contacts import (
    SERVICE,
    AddContact,
    AddGroup,
    ConfirmVerification,
    ContactRemovedReply,
    Contacts,
    ContactView,
    EditContact,
    EditGroup,
    GetContact,
    GetGroup,
    GetWebhookSecret,
    GroupRemovedReply,
    Groups,
    GroupView,
    ListContacts,
    ListGroups,
    ReissueWebhookSecret,
    RemoveContact,
    RemoveGroup,
    RequestVerification,
    SendTest,
    TestRequested,
    Unsubscribe,
    Unsubscribed,
    VerificationResult,
    VerificationView,
    WebhookSecret,
)
from shared.eventlog.decision import Decision
from shared.eventlog.facts import no_facts
from shared.events.alerts import AlertsEvent
from shared.ids import new_code, new_id, new_webhook_secret
from shared.postgres import Connection

R = TypeVar("R", bound=Reply)
Facts = TypeVar("Facts")


class ContactHandlers(Answering[Started]):
    """Everything that is asked about contacts and groups."""

    service = SERVICE

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    @property
    def answers(self) -> Mapping[type[Command | Query], Callable[..., Awaitable[Any]]]:
        """By command or query."""
        return {
            AddContact: self.add_contact,
            EditContact: self.edit_contact,
            RemoveContact: self.remove_contact,
            ReissueWebhookSecret: self.reissue_webhook_secret,
            RequestVerification: self.request_verification,
            ConfirmVerification: self.confirm_verification,
            Unsubscribe: self.unsubscribe,
            SendTest: self.send_test,
            AddGroup: self.add_group,
            EditGroup: self.edit_group,
            RemoveGroup: self.remove_group,
            ListContacts: self.list_contacts,
            GetContact: self.get_contact,
            GetWebhookSecret: self.get_webhook_secret,
            ListGroups: self.list_groups,
            GetGroup: self.get_group,
        }

    # -- contacts

    async def add_contact(self, command: AddContact) -> ContactView:
        """Answer AddContact."""
        contact_id, new = new_id(), _new()

        async def facts(connection: Connection) -> contacts.AccountFacts:
            found = await people_queries.contact_ids(connection, command.account)
            return contacts.AccountFacts(self._clock.now(), len(found))

        return await self._of_contact(
            command,
            contact_id,
            lambda state, facts: contacts.add_contact(state, facts, command, contact_id, new),
            ContactView,
            facts,
        )

    async def edit_contact(self, command: EditContact) -> ContactView:
        """Answer EditContact."""
        new = _new()
        return await self._of_contact(
            command,
            command.contact_id,
            lambda state, facts: contacts.edit_contact(state, facts, command, new),
            ContactView,
            self._card(command.account, command.contact_id),
        )

    async def reissue_webhook_secret(self, command: ReissueWebhookSecret) -> WebhookSecret:
        """Answer ReissueWebhookSecret."""
        new = _new()
        return await self._of_contact(
            command,
            command.contact_id,
            lambda state, facts: contacts.reissue_webhook_secret(state, facts, command, new),
            WebhookSecret,
            self._card(command.account, command.contact_id),
        )

    async def remove_contact(self, command: RemoveContact) -> ContactRemovedReply:
        """Answer RemoveContact."""
        return await self._of_contact(
            command, command.contact_id, lambda state, _: contacts.remove_contact(state, command), ContactRemovedReply
        )

    async def request_verification(self, command: RequestVerification) -> VerificationView:
        """Answer RequestVerification."""
        new = verification.NewCode(new_id(), new_code())

        async def facts(connection: Connection) -> verification.CodeFacts:
            now = self._clock.now()
            everybody = await people_queries.contacts_of(connection, self.running.vault, command.account)
            having = {one.contact.contact_id: addresses(one.kept.card).get(command.method) for one in everybody}
            address = having.get(command.contact_id)
            sent = await people_queries.asked_for(connection, command.account, "verification", now - verification.DAY)
            there = [one.at for one in sent if one.method == command.method and having.get(one.contact_id, "") == address]
            return verification.CodeFacts(now, there, [one.at for one in sent])

        return await self._of_contact(
            command,
            command.contact_id,
            lambda state, facts: verification.request_verification(state, facts, command, new),
            VerificationView,
            facts,
        )

    async def confirm_verification(self, command: ConfirmVerification) -> VerificationResult:
        """Answer ConfirmVerification."""

        async def facts(connection: Connection) -> verification.EnteredFacts:
            codes = await people_queries.codes_for(connection, self.running.vault, command.contact_id, command.method)
            return verification.EnteredFacts(self._clock.now(), codes)

        return await self._of_contact(
            command,
            command.contact_id,
            lambda state, facts: verification.confirm_verification(state, facts, command),
            VerificationResult,
            facts,
        )

    async def unsubscribe(self, command: Unsubscribe) -> Unsubscribed:
        """Answer Unsubscribe: for the account that the token names, whatever the command says."""
        said = read_token(self.running.vault, command.token)
        command = command.model_copy(update={"account": said.account, "actor": f"contact:{said.contact_id}"})
        return await self._of_contact(
            command, said.contact_id, lambda state, _: verification.unsubscribe(state, command, said.method), Unsubscribed
        )

    async def send_test(self, command: SendTest) -> TestRequested:
        """Answer SendTest."""

        async def facts(connection: Connection) -> verification.TriedFacts:
            now = self._clock.now()
            asked = await people_queries.asked_for(connection, command.account, "test", now - verification.HOUR)
            return verification.TriedFacts(now, [one.at for one in asked if one.contact_id == command.contact_id])

        return await self._of_contact(
            command,
            command.contact_id,
            lambda state, facts: verification.send_test(state, facts, command),
            TestRequested,
            facts,
        )

    async def list_contacts(self, query: ListContacts) -> Contacts:
        """Answer ListContacts."""
        now = self._clock.now()
        async with snapshot(self.running.pool) as connection:
            found = await people_queries.contacts_of(connection, self.running.vault, query.account)
        return Contacts(contacts=tuple(contacts.contact_view(one.contact, one.kept, now) for one in found))

    async def get_contact(self, query: GetContact) -> ContactView:
        """Answer GetContact."""
        found = await self._find(query.account, query.contact_id)
        return contacts.contact_view(found.contact, found.kept, self._clock.now())

    async def get_webhook_secret(self, query: GetWebhookSecret) -> WebhookSecret:
        """Answer GetWebhookSecret."""
        secret = (await self._find(query.account, query.contact_id)).kept.card.webhook_secret
        if not secret:
            raise contacts.no_webhook()
        return WebhookSecret(contact_id=query.contact_id, secret=secret)

    # -- groups

    async def add_group(self, command: AddGroup) -> GroupView:
        """Answer AddGroup."""
        group_id = new_id()
        return await self._of_group(
            command, group_id, lambda state, facts: groups.add_group(state, facts, command, group_id), GroupView
        )

    async def edit_group(self, command: EditGroup) -> GroupView:
        """Answer EditGroup."""
        return await self._of_group(
            command, command.group_id, lambda state, facts: groups.edit_group(state, facts, command), GroupView
        )

    async def remove_group(self, command: RemoveGroup) -> GroupRemovedReply:
        """Answer RemoveGroup."""
        return await self.running.transactor.run(
            command,
            groups.group_stream(command.group_id),
            None,
            groups.evolve,
            lambda state, _: groups.remove_group(state, command),
            GroupRemovedReply,
        )

    async def list_groups(self, query: ListGroups) -> Groups:
        """Answer ListGroups."""
        return Groups(groups=await self._groups(query.account))

    async def get_group(self, query: GetGroup) -> GroupView:
        """Answer GetGroup."""
        found = await self._groups(query.account, query.group_id)
        if not found:
            raise groups.no_group()
        return found[0]

    # -- what they have in common

    async def _of_contact(
        self,
        command: Command,
        contact_id: str,
        decide: Callable[[contacts.Contact | None, Facts], Decision[AlertsEvent, R]],
        reply: type[R],
        facts: Callable[[Connection], Awaitable[Facts]] = no_facts,  # type: ignore[assignment]  # Facts is None then
    ) -> R:
        stream = contacts.contact_stream(contact_id)
        return await self.running.transactor.run(command, stream, None, contacts.evolve, decide, reply, facts)

    async def _of_group(
        self,
        command: AddGroup | EditGroup,
        group_id: str,
        decide: Callable[[groups.Group | None, groups.GroupFacts], Decision[AlertsEvent, GroupView]],
        reply: type[GroupView],
    ) -> GroupView:
        """What was decided, or was when the command was done first; with the names of today, which only the vault has."""

        async def facts(connection: Connection) -> groups.GroupFacts:
            known = await people_queries.groups_of(connection, command.account)
            ids = await people_queries.contact_ids(connection, command.account)
            return groups.GroupFacts(ids, {group.group_id: group.name for group in known})

        stream = groups.group_stream(group_id)
        view = await self.running.transactor.run(command, stream, None, groups.evolve, decide, reply, facts)
        ids = [member.contact_id for member in view.contacts]
        async with snapshot(self.running.pool) as connection:
            names = await people_queries.names_of(connection, self.running.vault, command.account, ids)
        return people_queries.group_view(view.group_id, view.name, ids, names)

    async def _groups(self, account: str, group_id: str | None = None) -> tuple[GroupView, ...]:
        async with snapshot(self.running.pool) as connection:
            found = await people_queries.groups_of(connection, account, group_id)
            members = {contact for group in found for contact in group.contacts}
            names = await people_queries.names_of(connection, self.running.vault, account, members)
        return tuple(people_queries.group_view(*group, names) for group in found)

    def _card(self, account: str, contact_id: str) -> Callable[[Connection], Awaitable[contacts.CardFacts]]:
        async def facts(connection: Connection) -> contacts.CardFacts:
            found = await people_queries.contact_of(connection, self.running.vault, account, contact_id)
            return contacts.CardFacts(self._clock.now(), None if found is None else found.kept)

        return facts

    async def _find(self, account: str, contact_id: str) -> people_queries.Known:
        async with snapshot(self.running.pool) as connection:
            found = await people_queries.contact_of(connection, self.running.vault, account, contact_id)
        if found is None:
            raise contacts.no_contact()
        return found


def _new() -> contacts.New:
    return contacts.New(new_id(), new_webhook_secret())
