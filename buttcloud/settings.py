"""Every setting, each with a default that runs on one machine with nothing beside it.

MODE=production takes the defaults of secrets away: it refuses to start without them. Nothing else in the code asks for
the mode; it asks for the setting that it needs. docs/configure.md lists the variables.
"""

from base64 import b64decode
from email.utils import parseaddr
from pathlib import Path
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured
from django.urls import reverse_lazy
from django.utils.csp import CSP

from buttcloud import env

BASE_DIR = Path(__file__).resolve().parent.parent
VAR = Path(env.text("BUTTCLOUD_VAR", str(BASE_DIR / "var")))
MODE = env.text("MODE", "embedded")
if MODE not in ("embedded", "production"):
    raise ImproperlyConfigured(f"MODE must be embedded or production, not {MODE!r}.")
PRODUCTION = MODE == "production"


GUESSED_FIRST = ("buttcloud", "postgres", "password", "secret", "changeme")


def secret(name: str, embedded: str | None = None) -> str:
    """A secret from the environment or a file. Production refuses to run without; embedded makes one and keeps it."""
    value = env.text(name)
    if PRODUCTION and value in (embedded, *GUESSED_FIRST):
        raise ImproperlyConfigured(f"Production needs a {name} that nobody can guess.")
    if value:
        return value
    if PRODUCTION:
        raise ImproperlyConfigured(f"Production needs {name}: set it, or {name}_FILE to a file that holds it.")
    return embedded if embedded is not None else env.kept_secret(VAR / "secrets" / name.lower(), env.random_word)


# --- Django ------------------------------------------------------------------------------------------------------
SECRET_KEY = secret("SECRET_KEY")
DEBUG = env.flag("DEBUG", False)
if PRODUCTION and DEBUG:
    raise ImproperlyConfigured("Production never runs with DEBUG: take it out of the environment.")
if PRODUCTION and len(SECRET_KEY) < 50:
    raise ImproperlyConfigured("Production needs a SECRET_KEY of at least 50 random characters.")

SITE_PORT = env.number("SITE_PORT", 8000)
SITE_URL = env.text("SITE_URL", f"http://localhost:{SITE_PORT}").rstrip("/")
if PRODUCTION and not SITE_URL.startswith("https://"):
    raise ImproperlyConfigured("Production needs SITE_URL, the https address of the site, like https://pubs.example.")
ALLOWED_HOSTS = env.words("ALLOWED_HOSTS", SITE_URL.split("//")[1].split(":")[0] + ("" if PRODUCTION else ",127.0.0.1"))
if PRODUCTION and "*" in ALLOWED_HOSTS:
    raise ImproperlyConfigured("Production needs ALLOWED_HOSTS to name the site's hosts, not *.")
CSRF_TRUSTED_ORIGINS = [SITE_URL]

INSTALLED_APPS = [
    "buttcloud",
    "accounts",
    "pubs",
    "billing",
    "orchestrator",
    "mailer",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "allauth",
    "allauth.account",
    "anymail",
    "channels",
    "django_celery_beat",
    "djstripe",
    "drf_spectacular",
    "knox",
    "rest_framework",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django.middleware.csp.ContentSecurityPolicyMiddleware",
    "allauth.account.middleware.AccountMiddleware",
]
ROOT_URLCONF = "buttcloud.urls"
ASGI_APPLICATION = "buttcloud.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
FORM_RENDERER = "buttcloud.forms.Renderer"
STATIC_URL = "/static/"
# Production serves what `collectstatic` gathered here; embedded serves straight from the apps.
STATIC_ROOT = VAR / "static" if PRODUCTION else None
STATICFILES_DIRS = [BASE_DIR / "buttcloud" / "static"]
WHITENOISE_USE_FINDERS = not PRODUCTION
if PRODUCTION:
    STORAGES = {
        "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
        "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
    }
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en-gb"
FORMAT_MODULE_PATH = ["buttcloud.formats"]

# --- Database, broker, channel layer, cache: one machine, or Postgres and Redis -----------------------------------
if PRODUCTION or env.text("DB_HOST"):
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": env.text("DB_HOST", "postgres"),
            "PORT": env.text("DB_PORT", "5432"),
            "NAME": env.text("DB_NAME", "buttcloud"),
            "USER": env.text("DB_USER", "buttcloud"),
            "PASSWORD": secret("DB_PASSWORD"),
            "CONN_MAX_AGE": 0,
        }
    }
else:
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": VAR / "db.sqlite3",
            "OPTIONS": {
                # IMMEDIATE: two writers wait for each other instead of failing half way through.
                "transaction_mode": "IMMEDIATE",
                "timeout": 20,
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA foreign_keys=ON;",
            },
            "TEST": {"NAME": VAR / "test.sqlite3"},
        }
    }

REDIS_URL = secret("REDIS_URL", embedded="")
if urlsplit(REDIS_URL).path.strip("/"):
    raise ImproperlyConfigured(
        "REDIS_URL names no database, for we use three of them: like redis://:PASSWORD@HOST:6379"
    )
if REDIS_URL:
    CACHES = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": f"{REDIS_URL}/2"}}
    CHANNEL_LAYERS = {
        "default": {
            # Pub/sub: three connections a process, where the list layer opens hundreds when browsers leave at once.
            "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
            "CONFIG": {"hosts": [f"{REDIS_URL}/1"]},
        }
    }
    CELERY_BROKER_URL = f"{REDIS_URL}/0"
else:
    CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    CHANNEL_LAYERS = {"default": {"BACKEND": "buttcloud.layers.ThreadSafeInMemoryChannelLayer"}}
    CELERY_BROKER_URL = "memory://"
    CELERY_BROKER_TRANSPORT_OPTIONS = {"polling_interval": 0.05}

# --- Celery --------------------------------------------------------------------------------------------------------
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_DEFAULT_QUEUE = "default"
CELERY_TASK_ROUTES = {
    "orchestrator.*": {"queue": "swarm"},
    "mailer.*": {"queue": "mailer"},
    # Apart, so that no address of a customer's that never answers keeps a sign-in code waiting.
    "mailer.post_hook": {"queue": "hooks"},
}
CELERY_TASK_TIME_LIMIT = 300
CELERY_TIMEZONE = "UTC"
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_BEAT_SCHEDULER = "django_celery_beat.schedulers:DatabaseScheduler"
CELERY_BEAT_SCHEDULE = {
    "look at the swarm": {"task": "orchestrator.reconcile", "schedule": 15, "options": {"expires": 15}},
    "look at the engines": {"task": "orchestrator.look_at_engines", "schedule": 30, "options": {"expires": 30}},
    "look at unfinished commands": {
        "task": "orchestrator.sweep_commands",
        "schedule": 15,
        "options": {"expires": 15},
    },
    "look at payments that are due": {"task": "billing.look_at_due", "schedule": 15, "options": {"expires": 15}},
    "look at Stripe": {"task": "billing.read_events", "schedule": 30, "options": {"expires": 30}},
    "compare all with Stripe": {"task": "billing.compare_at_night", "schedule": 600, "options": {"expires": 600}},
    "look how pubs answer": {"task": "orchestrator.check_pubs", "schedule": 60, "options": {"expires": 60}},
    "look for troubles of pubs": {"task": "orchestrator.look_for_troubles", "schedule": 20, "options": {"expires": 20}},
    "roll up samples": {"task": "orchestrator.roll_up", "schedule": 60, "options": {"expires": 60}},
    "send what is left in the outbox": {"task": "mailer.sweep", "schedule": 30, "options": {"expires": 30}},
}
# Each queue gets a pulse, which tells how long a job waits in it.
QUEUES = ("swarm", "mailer", "hooks", "default")
PULSE_SECONDS = 15
for queue in QUEUES:
    CELERY_BEAT_SCHEDULE[f"pulse of the {queue} queue"] = {
        "task": "orchestrator.pulse",
        "schedule": PULSE_SECONDS,
        "args": [queue],
        "options": {"queue": queue, "expires": 3600},
    }

# --- Accounts ------------------------------------------------------------------------------------------------------
AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = [
    "django.contrib.auth.backends.ModelBackend",
    "allauth.account.auth_backends.AuthenticationBackend",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = reverse_lazy("pubs:list")
ACCOUNT_ADAPTER = "accounts.adapter.AccountAdapter"
ACCOUNT_FORMS = {"signup": "accounts.forms.SignupForm", "login": "accounts.forms.LoginForm"}
ACCOUNT_USER_MODEL_USERNAME_FIELD = None
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_SIGNUP_FIELDS = ["email*"]
ACCOUNT_EMAIL_VERIFICATION = "mandatory"
ACCOUNT_EMAIL_VERIFICATION_BY_CODE_ENABLED = True
ACCOUNT_EMAIL_VERIFICATION_SUPPORTS_RESEND = True
ACCOUNT_LOGIN_BY_CODE_ENABLED = True
ACCOUNT_LOGIN_BY_CODE_SUPPORTS_RESEND = True
ACCOUNT_PASSWORD_RESET_BY_CODE_ENABLED = True
# Mail takes its time now and then; with three attempts a code, ten minutes are no gift to anybody.
ACCOUNT_LOGIN_BY_CODE_TIMEOUT = ACCOUNT_PASSWORD_RESET_BY_CODE_TIMEOUT = 600
# One address an account: the new one takes over when it is confirmed. The old one is told of every such change.
ACCOUNT_CHANGE_EMAIL = True
ACCOUNT_EMAIL_NOTIFICATIONS = True
ACCOUNT_REAUTHENTICATION_REQUIRED = True
ACCOUNT_SESSION_REMEMBER = True
ACCOUNT_SIGNUP_REDIRECT_URL = reverse_lazy("pubs:new")
ACCOUNT_LOGOUT_REDIRECT_URL = "/"
# Behind a proxy all visitors would share one address, and with it one rate limit.
ALLAUTH_TRUSTED_PROXY_COUNT = env.number("TRUSTED_PROXIES", 1 if PRODUCTION else 0)

# --- API -----------------------------------------------------------------------------------------------------------
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "knox.auth.TokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PAGINATION_CLASS": "rest_framework.pagination.PageNumberPagination",
    "PAGE_SIZE": 50,
    "DEFAULT_THROTTLE_CLASSES": ["rest_framework.throttling.UserRateThrottle"],
    "DEFAULT_THROTTLE_RATES": {"user": env.text("API_RATE", "300/minute")},
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
}
REST_KNOX = {"TOKEN_TTL": None, "AUTO_REFRESH": False}
SPECTACULAR_SETTINGS = {
    "TITLE": "buttcloud",
    "DESCRIPTION": "Hosted Scuttlebutt pubs, for programs of their owners.",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "ENUM_NAME_OVERRIDES": {"StatusEnum": "pubs.models.Status"},
}

# --- Stripe --------------------------------------------------------------------------------------------------------
STRIPE_PORT = env.number("STRIPE_PORT", 8001)
STRIPE_SECRET_KEY = secret("STRIPE_SECRET_KEY", embedded="sk_test_" + "local" * 5)
STRIPE_LIVE_MODE = STRIPE_SECRET_KEY.startswith(("sk_live_", "rk_live_"))
STRIPE_LIVE_SECRET_KEY = STRIPE_SECRET_KEY if STRIPE_LIVE_MODE else ""
STRIPE_TEST_SECRET_KEY = "" if STRIPE_LIVE_MODE else STRIPE_SECRET_KEY
# The shapes that our code was written for. Stripe serves them whatever its newest version is.
STRIPE_API_VERSION = "2026-05-27.dahlia"
STRIPE_API_HOST = env.text(
    "STRIPE_API_HOST", "https://api.stripe.com" if PRODUCTION else f"http://127.0.0.1:{STRIPE_PORT}"
).rstrip("/")
# Where its hosted pages are: Stripe's own, or on the port of the local Stripe.
STRIPE_PAGES = (
    ["https://checkout.stripe.com", "https://billing.stripe.com"]
    if STRIPE_API_HOST == "https://api.stripe.com"
    else [f"http://localhost:{urlsplit(STRIPE_API_HOST).port or 80}"]
)
# Where Stripe reaches us. The local Stripe calls over loopback, whatever name the site has.
STRIPE_WEBHOOK_BASE = env.text("STRIPE_WEBHOOK_BASE", SITE_URL if PRODUCTION else f"http://127.0.0.1:{SITE_PORT}")
# What can be bought: a pub of so many GB of memory, and for each what a month and a year cost in the smallest unit of
# the currency (cents; whole yen).
PUB_SIZES = (1, 2, 4)
PRICE_CURRENCY = env.text("PRICE_CURRENCY", "eur").lower()
PRICES_MONTHLY = env.numbers("PRICES_MONTHLY", (900, 1700, 3200), len(PUB_SIZES))
PRICES_YEARLY = env.numbers("PRICES_YEARLY", (9000, 17000, 32000), len(PUB_SIZES))
# Whether Stripe Tax reckons taxes at checkout; it must be set up in Stripe first.
STRIPE_TAX = env.flag("STRIPE_TAX", False)
# The ladder: how long a pub runs on after a payment failed, and how long all of it is kept once nothing is paid.
GRACE_DAYS = env.number("GRACE_DAYS", 14)
KEPT_DAYS = env.number("KEPT_DAYS", 60)
DJSTRIPE_FOREIGN_KEY_TO_FIELD = "id"
# dj-stripe's own migrations take two minutes; ours is one file with the same tables. It never
# changes after a release.
MIGRATION_MODULES = {"djstripe": "billing.djstripe_migrations"}

# --- Mail ----------------------------------------------------------------------------------------------------------
MAIL_PORT = env.number("MAIL_PORT", 8002)
MAIL_DIR = VAR / "mail"
EMAIL_BACKEND = env.text(
    "EMAIL_BACKEND",
    "mailer.catcher.CatchingBackend" if not PRODUCTION else "django.core.mail.backends.smtp.EmailBackend",
)
EMAIL_HOST = env.text("EMAIL_HOST", "localhost")
EMAIL_PORT = env.number("EMAIL_PORT", 25)
EMAIL_HOST_USER = env.text("EMAIL_HOST_USER")
EMAIL_HOST_PASSWORD = env.text("EMAIL_HOST_PASSWORD")
EMAIL_USE_TLS = env.flag("EMAIL_USE_TLS", False)
EMAIL_TIMEOUT = 20
# For a provider's API: EMAIL_BACKEND=anymail.backends.sendgrid.EmailBackend (or postmark, mailgun, …) and its key here.
ANYMAIL = {
    name: value
    for name in (
        "SENDGRID_API_KEY",
        "SENDGRID_API_URL",
        "POSTMARK_SERVER_TOKEN",
        "MAILGUN_API_KEY",
        "BREVO_API_KEY",
        "RESEND_API_KEY",
    )
    if (value := env.text(name))
}
DEFAULT_FROM_EMAIL = env.text("MAIL_FROM", "buttcloud <hello@localhost>")
if PRODUCTION and DEFAULT_FROM_EMAIL.endswith("@localhost>"):
    raise ImproperlyConfigured(
        "Production needs MAIL_FROM, the sender of our mails, like buttcloud <hello@pubs.example>."
    )
SERVER_EMAIL = DEFAULT_FROM_EMAIL
# Webhooks to addresses that only this machine or its network reaches, and without TLS: fine at home, in production a
# way for customers to call our own machines.
HOOK_ALLOW_PRIVATE = env.flag("HOOK_ALLOW_PRIVATE", not PRODUCTION)
# Where customers write to.
CONTACT_EMAIL = env.text("CONTACT_EMAIL", parseaddr(DEFAULT_FROM_EMAIL)[1])

# --- Orchestrator --------------------------------------------------------------------------------------------------
DEPLOYMENT = env.text("DEPLOYMENT", "buttcloud")
# Docker's names have at most 63 characters, and `-pub-` and a bot's id follow it in those of the services.
if len(DEPLOYMENT) > 22:
    raise ImproperlyConfigured(f"DEPLOYMENT must have at most 22 characters, not {len(DEPLOYMENT)}.")
# Under this name Stripe keeps which user a customer is: each deployment counts its users from 1, and many may share one
# account. (Names there have at most 40 characters.)
DJSTRIPE_SUBSCRIBER_CUSTOMER_KEY = f"{DEPLOYMENT}_user"
SWARM = env.text("SWARM", "orchestrator.swarm.engine.EngineSwarm")
MACHINES = env.text("MACHINES", "orchestrator.machines.local.LocalMachines")
PUB_IMAGE = env.text("PUB_IMAGE") or ((VAR / "pub_image").read_text().strip() if (VAR / "pub_image").exists() else "")
if PUB_IMAGE and not (PUB_IMAGE.startswith("sha256:") or "@sha256:" in PUB_IMAGE):
    raise ImproperlyConfigured(
        f"PUB_IMAGE must name an image by id or digest (sha256:…), for a tag can move: {PUB_IMAGE}"
    )
PUB_HOST = env.text("PUB_HOST", "127.0.0.1")
if PRODUCTION and not PUB_IMAGE:
    raise ImproperlyConfigured("Production needs PUB_IMAGE, the pub image by id or digest.")
# Where each pub has a name of its own, `<label>.<PUB_DOMAIN>`, and the name server that takes the records.
PUB_DOMAIN = env.text("PUB_DOMAIN").strip(".").lower()
DNS = env.text("DNS", "orchestrator.dns.none.NoNames")
DNS_SERVER = env.text("DNS_SERVER")
DNS_ZONE = env.text("DNS_ZONE", PUB_DOMAIN).strip(".").lower()
DNS_KEY_NAME = env.text("DNS_KEY_NAME")
DNS_KEY = env.text("DNS_KEY")
DNS_TTL = env.number("DNS_TTL", 60)
if PUB_DOMAIN and DNS == "orchestrator.dns.none.NoNames":
    raise ImproperlyConfigured(
        "Nothing writes records under PUB_DOMAIN: set DNS=orchestrator.dns.rfc2136.ZoneNames, or take PUB_DOMAIN out."
    )
if DNS == "orchestrator.dns.rfc2136.ZoneNames":
    for name in ("PUB_DOMAIN", "DNS_SERVER", "DNS_KEY_NAME", "DNS_KEY"):
        if not globals()[name]:
            raise ImproperlyConfigured(f"DNS={DNS} needs {name}: docs/configure.md says what it is.")
    if not DNS_SERVER.rpartition(":")[2].isdecimal():
        raise ImproperlyConfigured(f"DNS_SERVER must be host:port, like 192.0.2.53:53, not {DNS_SERVER!r}.")
    try:
        b64decode(DNS_KEY, validate=True)
    except ValueError:
        raise ImproperlyConfigured("DNS_KEY must be the key's secret in base64, as the name server has it.") from None
    if not f".{PUB_DOMAIN}".endswith(f".{DNS_ZONE}"):
        raise ImproperlyConfigured(f"PUB_DOMAIN must be DNS_ZONE or lie in it, but {PUB_DOMAIN} is not in {DNS_ZONE}.")
if PRODUCTION and "." not in (PUB_DOMAIN or PUB_HOST).strip("0123456789."):
    raise ImproperlyConfigured(
        "Production needs PUB_HOST, the name under which peers reach the pubs, or PUB_DOMAIN, where each has its own."
    )
# Invites with an address that only this machine or its network reaches: fine at home, a mistake in production.
PUB_ALLOW_PRIVATE = env.flag("PUB_ALLOW_PRIVATE", not PRODUCTION)
# Kept in a file beside the database, the key is the same for whatever command is run.
PUB_SHS = env.text("PUB_SHS") or ((VAR / "shs.key").read_text().strip() if (VAR / "shs.key").exists() else "")
PUB_PORTS = env.text("PUB_PORTS", "24000-28999")
PUB_MEMORY_GB = 1
HUB_PLACES = 15
# What we are ready to pay for: the plan never goes beyond it.
MAX_HUBS = env.number("MAX_HUBS", 1)
SPARE_PLACES = env.number("SPARE_PLACES", 0)
# How long a drained machine is kept, with the volumes as they were, in case a pub does not start where it is now.
DRAINED_REST_MINUTES = 10
# Disk that a pub may fill before its owner is warned, for each GB of memory that is paid for.
PUB_DISK_GB = env.number("PUB_DISK_GB", 10)
# A pub that gives no sign of life for so long is restarted. A large sync may keep it silent for 20 seconds and more on
# a busy machine, and would never end if it were restarted for that.
PUB_SILENCE_SECONDS = env.number("PUB_SILENCE_SECONDS", 60)
# A pub that crashes so often within so many minutes is stopped, and tried again after a rest.
CRASHES_MAX = env.number("CRASHES_MAX", 5)
CRASH_MINUTES = env.number("CRASH_MINUTES", 10)
# How workers and the broadcaster reach the engine of each hub: a folder with ca.pem, cert.pem and key.pem.
ENGINE_TLS = Path(env.text("ENGINE_TLS", str(VAR / "engine-tls")))
ENGINE_PORT = env.number("ENGINE_PORT", 2376)
# Where fresh machines reach the site to become hubs, for how long an invitation holds, and what is installed on them.
ENROL_URL = env.text("ENROL_URL", SITE_URL).rstrip("/")
if PRODUCTION and not ENROL_URL.startswith("https://"):
    raise ImproperlyConfigured("Production needs an ENROL_URL with https://, for keys of the swarm go over it.")
if (enrol_host := urlsplit(ENROL_URL).hostname or "") not in ALLOWED_HOSTS:
    ALLOWED_HOSTS.append(enrol_host)
ENROL_MINUTES = env.number("ENROL_MINUTES", 20)
HUB_PACKAGES = env.words("HUB_PACKAGES", "docker.io,iptables,openssl,curl,ca-certificates")
# After two to three of these Swarm calls a node down. Pubs are pinned, so nothing is gained by haste.
NODE_HEARTBEAT_SECONDS = env.number("NODE_HEARTBEAT_SECONDS", 20)
if PRODUCTION and not 20 <= NODE_HEARTBEAT_SECONDS <= 40:
    raise ImproperlyConfigured(
        "NODE_HEARTBEAT_SECONDS must be 20 to 40: below, busy machines seem lost; above, lost ones seem well."
    )

# --- Hubs on OpenStack (MACHINES=orchestrator.machines.openstack.OpenStackMachines) ----------------------------------
# The access is a cloud of clouds.yaml; what follows are names or ids of what that cloud offers our project.
OPENSTACK_CLOUD = env.text("OPENSTACK_CLOUD", "buttcloud")
OPENSTACK_FLAVOR = env.text("OPENSTACK_FLAVOR")
OPENSTACK_IMAGE = env.text("OPENSTACK_IMAGE")
OPENSTACK_NETWORK = env.text("OPENSTACK_NETWORK")
OPENSTACK_SECURITY_GROUP = env.text("OPENSTACK_SECURITY_GROUP")
# Where each hub gets a floating address for its peers. None: its address on OPENSTACK_NETWORK is a public one.
OPENSTACK_FLOATING_NETWORK = env.text("OPENSTACK_FLOATING_NETWORK")
OPENSTACK_KEY = env.text("OPENSTACK_KEY")
if MACHINES == "orchestrator.machines.openstack.OpenStackMachines":
    for name in ("OPENSTACK_FLAVOR", "OPENSTACK_IMAGE", "OPENSTACK_NETWORK", "OPENSTACK_SECURITY_GROUP"):
        if not globals()[name]:
            raise ImproperlyConfigured(f"Hubs on OpenStack need {name}.")

# --- Metrics -------------------------------------------------------------------------------------------------------
# Whoever has it may read /metrics. Production without one has no such address.
METRICS_TOKEN = env.text("METRICS_TOKEN") if PRODUCTION else secret("METRICS_TOKEN")
if PRODUCTION and METRICS_TOKEN and len(METRICS_TOKEN) < 20:
    raise ImproperlyConfigured("Production needs a METRICS_TOKEN that nobody can guess: 20 characters at least.")

# --- Safety --------------------------------------------------------------------------------------------------------
SECURE_CSP = {
    "default-src": [CSP.SELF],
    "img-src": [CSP.SELF, "data:"],
    "object-src": [CSP.NONE],
    "base-uri": [CSP.NONE],
    "frame-ancestors": [CSP.NONE],
    # Chromium checks the redirect after a form post too, so the hosted pages of Stripe must be listed.
    "form-action": [CSP.SELF, *STRIPE_PAGES],
}
X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"
SESSION_COOKIE_HTTPONLY = True
if PRODUCTION:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    SECURE_SSL_REDIRECT = True
    SECURE_HSTS_SECONDS = env.number("HSTS_SECONDS", 31536000)
    SECURE_HSTS_INCLUDE_SUBDOMAINS = True
    SECURE_HSTS_PRELOAD = True
    SESSION_COOKIE_SECURE = True
    CSRF_COOKIE_SECURE = True

SILENCED_SYSTEM_CHECKS = [
    "djstripe.W002",  # STRIPE_API_HOST outside DEBUG: the local Stripe is meant here
    "anymail.W003",  # anymail no longer tests SendGrid; the provider is the operator's choice
]
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "{asctime} {levelname:<7} {name}: {message}", "style": "{"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "root": {"handlers": ["console"], "level": env.text("LOG_LEVEL", "INFO")},
    "loggers": {
        "celery": {"level": "WARNING"},
        "django_celery_beat": {"level": "WARNING"},
        "kombu": {"level": "ERROR"},
        "uvicorn": {"level": "WARNING"},
        "djstripe": {"level": "WARNING"},
        "stripe": {"level": "WARNING"},
    },
}
