/* Time that passes, whatever the calendar is set to. */
#ifndef FR_CLOCK_H
#define FR_CLOCK_H

double fr_seconds(void);

#endif
