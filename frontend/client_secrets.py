"""How a client's secret is kept."""

from django.contrib.auth.hashers import PBKDF2PasswordHasher


class SecretHasher(PBKDF2PasswordHasher):
    """One round of salted HMAC-SHA-256 and no more.

    Slow hashes make guessing a person's password dear. A secret is 128 random characters, which nobody guesses, and is
    checked at every request for a token.
    """

    algorithm = "pbkdf2_secret"
    iterations = 1
