/* Parameters that a main.cf brings along from Postfix, and that are not here. */
#include "conf/params.h"

static const struct {
    const char *name, *instead;
} of_postfix[] = {
    {"alias_database", "nothing is delivered on this machine; take the line out"},
    {"alias_maps", "nothing is delivered on this machine; take the line out"},
    {"append_dot_mydomain", "addresses stay as they are; take the line out"},
    {"biff", "nothing is delivered on this machine; take the line out"},
    {"broken_sasl_auth_clients", "clients of that kind are gone; take the line out"},
    {"compatibility_level", "take the line out"},
    {"disable_vrfy_command", "VRFY never tells whether an address exists; take the line out"},
    {"local_recipient_maps", "nothing is delivered on this machine; take the line out"},
    {"mailbox_size_limit", "nothing is delivered on this machine; take the line out"},
    {"mydestination", "nothing is delivered on this machine; take the line out"},
    {"readme_directory", "take the line out"},
    {"recipient_delimiter", "nothing is delivered on this machine; take the line out"},
    {"smtp_enforce_tls", "write smtp_tls_security_level = encrypt"},
    {"smtp_tls_note_starttls_offer", "take the line out"},
    {"smtp_tls_session_cache_database", "TLS sessions are kept in memory, for "
                                        "smtp_tls_session_cache_timeout; take the line out"},
    {"smtp_tls_wrappermode", "TLS begins with STARTTLS; take the line out"},
    {"smtp_use_tls", "write smtp_tls_security_level = may"},
    {"smtpd_enforce_tls", "write smtpd_tls_security_level = encrypt"},
    {"smtpd_relay_restrictions",
     "clients in mynetworks, with AUTH or a certificate may relay, others never; write further "
     "conditions into smtpd_recipient_restrictions"},
    {"smtpd_sender_login_maps",
     "the addresses of users are their account's domains: 'postern domain add', or an import"},
    {"smtpd_tls_CApath", "write the authorities into one file: smtpd_tls_CAfile"},
    {"smtpd_tls_ccert_verifydepth", "take the line out"},
    {"smtpd_tls_dh1024_param_file", "OpenSSL chooses the parameters; take the line out"},
    {"smtpd_tls_dh512_param_file", "OpenSSL chooses the parameters; take the line out"},
    {"smtpd_tls_exclude_ciphers", "smtpd_tls_ciphers = high is the choice there is"},
    {"smtpd_tls_fingerprint_digest", "fingerprints are of SHA-256 (relay_clientcerts); take the "
                                     "line out"},
    {"smtpd_tls_mandatory_exclude_ciphers",
     "smtpd_tls_mandatory_ciphers = high is the choice there is"},
    {"smtpd_tls_session_cache_database",
     "clients keep their TLS sessions (tickets), for smtpd_tls_session_cache_timeout; take the "
     "line out"},
    {"smtpd_use_tls", "write smtpd_tls_security_level = may"},
    {"tls_preempt_cipherlist", "the server chooses; take the line out"},
    {"tls_random_source", "OpenSSL takes it from the kernel; take the line out"},
};

const char *param_of_postfix(struct slice name)
{
    for (size_t i = 0; i < sizeof of_postfix / sizeof of_postfix[0]; i++)
        if (slice_eq(name, slice_str(of_postfix[i].name)))
            return of_postfix[i].instead;
    return NULL;
}
