"""Functions that review-triage.md lets its model call."""

OWNERS = {"phone": "mobile", "speaker": "audio", "kettle": "kitchen"}


def owner_of(product: str) -> str:
    """Return the team that owns a product.

    Args:
        product: the product's name as the review has it.
    """
    return OWNERS.get(product.lower(), "support")
