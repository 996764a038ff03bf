"""/v1/contacts: who can be told, the codes that prove their addresses, and test messages."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Body, Query, Response

from services.console.http.bodies import AsBody, addressed, empty, example
from services.console.http.deliveries import DeliveriesQuery, DeliveryList, deliveries_page
from services.console.http.request import Behind, CommandId, ContactIdInPath, Member, NothingAsked
from shared.commands import contacts
from shared.errors import FieldProblem, InvalidInput

router = APIRouter(prefix="/v1/contacts", tags=["contacts"])

ADD: Final = example(
    "Told in Korean, by mail and text message, not at night",
    name="홍길동",
    email="gildong@example.com",
    phone="+821012345678",
    locale="ko",
    zone="Asia/Seoul",
    quiet_hours={"start": "22:00", "end": "07:00"},
)
EDIT: Final = example(
    "Another address, no quiet hours, one digest a day", email="team@example.com", quiet_hours="", digest_at="09:00"
)
VERIFY: Final = example("Send a code to the mail address", method="email")
CONFIRM: Final = example("The code that was in the mail", method="email", code="042137")
TEST: Final = example("A test message to the mail address", method="email")


@router.get("", operation_id="listContacts")
async def list_contacts(principal: Member, behind: Behind, _: NothingAsked) -> contacts.Contacts:
    """All of the account's contacts, by name."""
    return await behind.ask(contacts.SERVICE, contacts.ListContacts(account=principal.account), contacts.Contacts)


@router.post("", operation_id="addContact", status_code=201)
async def add_contact(
    principal: Member,
    behind: Behind,
    command_id: CommandId,
    response: Response,
    _: NothingAsked,
    body: Annotated[contacts.AddContact, AsBody(), Body(openapi_examples=ADD)],
) -> contacts.ContactView:
    """Add somebody who can be told, with one address at least. Until an address is verified, only its codes are sent there."""
    added = await behind.ask(contacts.SERVICE, addressed(body, principal, command_id), contacts.ContactView)
    response.headers["Location"] = f"/v1/contacts/{added.contact_id}"
    return added


@router.get("/{contact_id}", operation_id="getContact")
async def get_contact(principal: Member, behind: Behind, contact_id: ContactIdInPath, _: NothingAsked) -> contacts.ContactView:
    """One contact, and which of its addresses are verified."""
    query = contacts.GetContact(account=principal.account, contact_id=contact_id)
    return await behind.ask(contacts.SERVICE, query, contacts.ContactView)


@router.patch("/{contact_id}", operation_id="editContact")
async def edit_contact(
    principal: Member,
    behind: Behind,
    command_id: CommandId,
    contact_id: ContactIdInPath,
    _: NothingAsked,
    body: Annotated[contacts.EditContact, AsBody(), Body(openapi_examples=EDIT)],
) -> contacts.ContactView:
    """Change what is given; what is left out, or null, stays as it is. An empty string removes an address, the quiet hours or the
    digest. A new address has to be verified."""
    command = addressed(body, principal, command_id, contact_id=contact_id)
    return await behind.ask(contacts.SERVICE, command, contacts.ContactView)


@router.delete("/{contact_id}", operation_id="removeContact", status_code=204)
async def remove_contact(
    principal: Member, behind: Behind, command_id: CommandId, contact_id: ContactIdInPath, _: NothingAsked
) -> None:
    """Remove the contact, from all groups and recipients too. Its name and addresses are shredded; history shows that it
    is gone."""
    command = addressed(empty(contacts.RemoveContact), principal, command_id, contact_id=contact_id)
    await behind.ask(contacts.SERVICE, command, contacts.ContactRemovedReply)


@router.post("/{contact_id}/verification", operation_id="requestVerification", status_code=202)
async def request_verification(
    principal: Member,
    behind: Behind,
    command_id: CommandId,
    contact_id: ContactIdInPath,
    _: NothingAsked,
    body: Annotated[contacts.RequestVerification, AsBody(), Body(openapi_examples=VERIFY)],
) -> contacts.VerificationView:
    """Send a code to the contact's address of that method. The codes before are void."""
    command = addressed(body, principal, command_id, contact_id=contact_id)
    return await behind.ask(contacts.SERVICE, command, contacts.VerificationView)


@router.put("/{contact_id}/verification", operation_id="confirmVerification")
async def confirm_verification(
    principal: Member,
    behind: Behind,
    command_id: CommandId,
    contact_id: ContactIdInPath,
    _: NothingAsked,
    body: Annotated[contacts.ConfirmVerification, AsBody(), Body(openapi_examples=CONFIRM)],
) -> contacts.VerificationResult:
    """Enter the code: from then on the contact can be told by that method. A wrong one is a 422 that says how many attempts are
    left."""
    command = addressed(body, principal, command_id, contact_id=contact_id)
    result = await behind.ask(contacts.SERVICE, command, contacts.VerificationResult)
    if not result.verified:
        raise InvalidInput("The address is not verified.", [_wrong_code(result)])
    return result


@router.post("/{contact_id}/test", operation_id="sendTest", status_code=202)
async def send_test(
    principal: Member,
    behind: Behind,
    command_id: CommandId,
    contact_id: ContactIdInPath,
    _: NothingAsked,
    body: Annotated[contacts.SendTest, AsBody(), Body(openapi_examples=TEST)],
) -> contacts.TestRequested:
    """Send a test message to a verified address. What becomes of it is among the contact's deliveries."""
    command = addressed(body, principal, command_id, contact_id=contact_id)
    return await behind.ask(contacts.SERVICE, command, contacts.TestRequested)


@router.get("/{contact_id}/webhook-secret", operation_id="getWebhookSecret")
async def get_webhook_secret(
    principal: Member, behind: Behind, contact_id: ContactIdInPath, _: NothingAsked
) -> contacts.WebhookSecret:
    """The secret (whsec_...) that the contact's webhook is signed with, as Standard Webhooks says. 404 when it has no webhook."""
    query = contacts.GetWebhookSecret(account=principal.account, contact_id=contact_id)
    return await behind.ask(contacts.SERVICE, query, contacts.WebhookSecret)


@router.post("/{contact_id}/webhook-secret/reissue", operation_id="reissueWebhookSecret")
async def reissue_webhook_secret(
    principal: Member, behind: Behind, command_id: CommandId, contact_id: ContactIdInPath, _: NothingAsked
) -> contacts.WebhookSecret:
    """Have the contact's webhook signed with a new secret from now on."""
    command = addressed(empty(contacts.ReissueWebhookSecret), principal, command_id, contact_id=contact_id)
    return await behind.ask(contacts.SERVICE, command, contacts.WebhookSecret)


@router.get("/{contact_id}/deliveries", operation_id="listContactDeliveries")
async def list_contact_deliveries(
    principal: Member, behind: Behind, contact_id: ContactIdInPath, asked: Annotated[DeliveriesQuery, Query()]
) -> DeliveryList:
    """What was to be sent to the contact, the newest first, and what became of it."""
    return await deliveries_page(behind, principal, asked, contact_id=contact_id)


def _wrong_code(result: contacts.VerificationResult) -> FieldProblem:
    """What is wrong with the code that was entered, and the way out."""
    if result.attempts_left:
        attempts = "1 attempt is" if result.attempts_left == 1 else f"{result.attempts_left} attempts are"
        problem = f"{result.problem or 'This is not the code.'} {attempts} left."
        return FieldProblem("code", problem, "Enter the code of the newest message.")
    again = f"Ask for a new code: POST /v1/contacts/{result.contact_id}/verification."
    return FieldProblem("code", result.problem or "The code is void.", again)
