/* Master's messages to a service; inside lib/service only. */
#ifndef POSTERN_SERVICE_CONTROL_H
#define POSTERN_SERVICE_CONTROL_H

#include "service/service.h"

/* Opens s->master on SERVICE_FD_MASTER. */
void service_control_open(struct service *s);
/* Opens the log again, after its descriptor or the configuration changed. */
void service_open_log(const struct service *s);
/* Starts draining, or changes the time for it. */
void service_drain(struct service *s, unsigned seconds, bool replaced);

#endif
