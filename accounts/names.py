"""What no name may have in it, a person's or a pub's."""

import unicodedata

from django.core.exceptions import ValidationError

# The joiners that emoji and Persian need; all other invisible characters are refused.
JOINERS = "\u200c\u200d"
INVISIBLE = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def check_characters(name: str) -> None:
    if any(unicodedata.category(character) in INVISIBLE and character not in JOINERS for character in name):
        raise ValidationError("A name has no control characters or line breaks.")
