"""Who is who: the certificate authority, join tokens, enrolment and signing."""
