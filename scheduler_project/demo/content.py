"""What the demo's messages say: templates in four languages, and the catalogues that others are translated by."""

from collections.abc import Mapping
from typing import Any

LANGUAGES = ("en", "de", "fr", "es")

NEWSLETTER = "Newsletter"
PREVIEW = "Preview"
GOOD_MORNING = "Good morning"
BULLETIN = "Shop bulletin"
REMINDER = "Basket reminder"
DIGEST = "Evening digest"

# What people may unsubscribe from: key, name, in German, and what it is.
NEWS, OFFERS = "news", "offers"
TOPICS = (
    (NEWS, "News", "Neuigkeiten", "What is new at the roastery, about once a week"),
    (OFFERS, "Offers", "Angebote", "Roasts at a special price, now and then"),
)

CATALOGUES: Mapping[str, Mapping[str, Any]] = {
    "en": {
        "morning.subject": "Good morning, {name}",
        "morning.hour": "On your clock it is {time}. Nobody gets this message at another hour.",
        "points": {"one": "You have {count} point.", "other": "You have {count} points."},
        "items": {"one": "{count} item is waiting", "other": "{count} items are waiting"},
    },
    "de": {
        "morning.subject": "Guten Morgen, {name}",
        "morning.hour": "Auf Ihrer Uhr ist es {time}. Niemand erhält diese Nachricht zu einer anderen Stunde.",
        "points": {"one": "Sie haben {count} Punkt.", "other": "Sie haben {count} Punkte."},
        "items": {"one": "{count} Artikel wartet", "other": "{count} Artikel warten"},
    },
    "fr": {
        "morning.subject": "Bonjour, {name}",
        "morning.hour": "À votre montre, il est {time}. Personne ne reçoit ce message à une autre heure.",
        "points": {"one": "Vous avez {count} point.", "other": "Vous avez {count} points."},
        "items": {"one": "{count} article vous attend", "other": "{count} articles vous attendent"},
    },
    "es": {
        "morning.subject": "Buenos días, {name}",
        "morning.hour": "En su reloj son las {time}. Nadie recibe este mensaje a otra hora.",
        "points": {"one": "Tiene {count} punto.", "other": "Tiene {count} puntos."},
        "items": {"one": "{count} artículo le espera", "other": "{count} artículos le esperan"},
    },
}

# language: subject, greeting, news, line about the last order (where there is one), why it comes, how to end it and how
# to choose
_NEWSLETTER = {
    "en": (
        "{{ first_name|default('Hello') }}, this is new in {{ city }}",
        "Dear {{ first_name|default('reader') }},",
        "three of our readers’ favourite roasts are back, and members of the {{ plan }} plan try them first.",
        "Your last order was on {{ last_order_at|date('long') }}.",
        "You get this letter because you subscribed to it.",
        ("Unsubscribe", "Choose what you get"),
    ),
    "de": (
        "{{ first_name|default('Hallo') }}, das gibt es Neues in {{ city }}",
        "Guten Tag {{ first_name }},",
        "drei Lieblingsröstungen sind wieder da, und wer den Tarif {{ plan }} hat, probiert sie zuerst.",
        "Ihre letzte Bestellung war am {{ last_order_at|date('long') }}.",
        "Sie erhalten diesen Brief, weil Sie ihn bestellt haben.",
        ("Abbestellen", "Auswählen, was Sie bekommen"),
    ),
    "fr": (
        "{{ first_name|default('Bonjour') }}, du nouveau à {{ city }}",
        "Bonjour {{ first_name }},",
        "trois torréfactions préférées de nos lecteurs sont de retour ; la formule {{ plan }} les goûte en premier.",
        "Votre dernière commande date du {{ last_order_at|date('long') }}.",
        "Vous recevez cette lettre parce que vous y êtes abonné.",
        ("Se désabonner", "Choisir ce que vous recevez"),
    ),
    "es": (
        "{{ first_name|default('Hola') }}, novedades en {{ city }}",
        "Hola, {{ first_name }}:",
        "han vuelto los tres tuestes favoritos de nuestros lectores, y el plan {{ plan }} los prueba primero.",
        "Su último pedido fue el {{ last_order_at|date('long') }}.",
        "Recibe esta carta porque se ha suscrito a ella.",
        ("Darse de baja", "Elegir lo que recibe"),
    ),
}

_PREVIEW = {
    "en": ("Before the others, {{ first_name|default('dear reader') }}", "Three roasts are back. Taste them first."),
    "de": ("Vor allen anderen, {{ first_name }}", "Drei Röstungen sind wieder da. Kosten Sie als Erste."),
    "fr": ("Avant les autres, {{ first_name }}", "Trois torréfactions sont de retour. Goûtez-les en premier."),
    "es": ("Antes que nadie, {{ first_name }}", "Han vuelto tres tuestes. Pruébelos primero."),
}

_BULLETIN = {
    "en": ("Bulletin of {{ occurrence.at|time('short') }}", "All is quiet, {{ first_name }}."),
    "de": ("Meldung von {{ occurrence.at|time('short') }}", "Alles ruhig, {{ first_name }}."),
    "fr": ("Bulletin de {{ occurrence.at|time('short') }}", "Tout est calme, {{ first_name }}."),
    "es": ("Boletín de las {{ occurrence.at|time('short') }}", "Todo tranquilo, {{ first_name }}."),
}

_REMINDER = {
    "en": ("Your basket", "{{ t('items', count=cart_items) }} for you, {{ first_name }}."),
    "de": ("Ihr Warenkorb", "{{ t('items', count=cart_items) }} auf Sie, {{ first_name }}."),
    "fr": ("Votre panier", "{{ first_name }}, {{ t('items', count=cart_items) }}."),
    "es": ("Su cesta", "{{ first_name }}, {{ t('items', count=cart_items) }}."),
}

_DIGEST = {
    "en": ("Good evening", "It is {{ occurrence.at|time('short') }} in {{ city }}. {{ t('points', count=points) }}"),
    "de": ("Guten Abend", "In {{ city }} ist es {{ occurrence.at|time('short') }}. {{ t('points', count=points) }}"),
    "fr": ("Bonsoir", "Il est {{ occurrence.at|time('short') }} à {{ city }}. {{ t('points', count=points) }}"),
    "es": ("Buenas tardes", "Son las {{ occurrence.at|time('short') }} en {{ city }}. {{ t('points', count=points) }}"),
}

_POINTS = "{{ t('points', count=points) }}"
_PAGE = (
    '<div style="font-family:Georgia,serif;max-width:36em;margin:2em auto;line-height:1.5">'
    '<div style="border-bottom:3px solid #b45309;font-size:1.4em">Rookery Coffee</div>{body}</div>'
)


def templates() -> dict[str, list[dict[str, str]]]:
    """Name to contents, as ``schedules.templates.save`` takes them."""
    return {
        NEWSLETTER: [_newsletter(language) for language in LANGUAGES],
        GOOD_MORNING: [_good_morning()],
        PREVIEW: _short("email", _PREVIEW),
        BULLETIN: _short("in_app", _BULLETIN),
        REMINDER: _short("push", _REMINDER),
        DIGEST: _short("push", _DIGEST),
    }


def service_id(name: str) -> str:
    """Under which a template service keeps the template of that name."""
    return name.lower().replace(" ", "-")


def _newsletter(language: str) -> dict[str, str]:
    subject, greeting, news, last_order, reason, links = _NEWSLETTER[language]
    addresses = ("{{ unsubscribe_url }}", "{{ preferences_url }}")
    ordered = f"{{% if last_order_at %}}{last_order}{{% endif %}}"
    paragraphs = [greeting, news, f"{ordered} {_POINTS}"]
    leaving = "\n".join(f"{words}: {address}" for words, address in zip(links, addresses, strict=True))
    linked = " · ".join(f'<a href="{address}">{words}</a>' for words, address in zip(links, addresses, strict=True))
    html = "".join(f"<p>{each}</p>" for each in paragraphs) + f"<p><small>{reason}<br>{linked}</small></p>"
    return {
        "channel": "email",
        "locale": language,
        "subject": subject,
        "text": "\n\n".join([*paragraphs, f"-- \n{reason}\n{leaving}\n"]),
        "html": _PAGE.format(body=html),
    }


def _good_morning() -> dict[str, str]:
    """One content for everyone: the catalogues translate it."""
    hour = "{{ t('morning.hour', time=occurrence.at|time('short')) }}"
    place = "{{ city }}, {{ occurrence.at|datetime('full') }}"
    return {
        "channel": "email",
        "locale": "en",
        "subject": "{{ t('morning.subject', name=first_name) }}",
        "text": f"{hour}\n{_POINTS}\n\n{place}\n",
        "html": _PAGE.format(body=f"<p>{hour}</p><p>{_POINTS}</p><p><small>{place}</small></p>"),
    }


def _short(channel: str, said: Mapping[str, tuple[str, str]]) -> list[dict[str, str]]:
    return [
        {"channel": channel, "locale": language, "subject": subject, "text": text}
        for language, (subject, text) in said.items()
    ]
