"""Times with their seconds and 24 hours, for admin: what staff compare happens within seconds."""

DATETIME_FORMAT = "j M Y, H:i:s"
TIME_FORMAT = "H:i:s"
