/* The store's limits and times. */
#ifndef POSTERN_QMGR_STORE_LIMITS_H
#define POSTERN_QMGR_STORE_LIMITS_H

enum {
    STORE_PATH_MAX = 64,            /* "new/BUCKET/ID" and such */
    STORE_ERROR_MAX = 256,          /* text of an error */
    STORE_BUCKET_SHIFT = 10,        /* a bucket holds 1024 seconds of IDs */
    STORE_BUCKETS_OPEN_MAX = 512,   /* directories kept open */
    STORE_BUCKET_SYNC_FREED = 32,   /* a batch also syncs directories with that many freed files */
    STORE_RECYCLE_MAX = 256 * 1024, /* larger files are unlinked */
    STORE_SCRATCH_KEEP = 1024 * 1024, /* larger buffers are given back */
    STORE_SYNC_DELAY_US = 500000,    /* marks and finishes wait at most this long for their fsync */
    STORE_FLIGHTS = 2,               /* batches that are being synced at a time */
    STORE_SWEEP = STORE_FLIGHTS,     /* the flight that has no batch */
    STORE_SYNCFS_SLOW_US = 50000,    /* a syncfs that takes longer: others write much to this file
                                      * system */
    STORE_SYNCFS_PAUSE_US = 1000000, /* then none for this long, doubling up to... */
    STORE_SYNCFS_PAUSE_MAX_US = 60000000,
    STORE_TICK_US = 1000000,      /* free space is looked at... */
    STORE_TICK_LOW_US = 100000,   /* ...and when little more than the reserve is left */
    STORE_SWEEP_US = 60000000,    /* empty old buckets are removed */
    STORE_IDLE_US = 60000000,     /* then free/ is trimmed... */
    STORE_TRIM_FILES = 32,        /* ...by so many files a tick */
    STORE_SURPLUS_SHARE = 256,    /* of the surplus 1/this more goes with each tick... */
    STORE_SURPLUS_FILES = 16,     /* ...and so many at a time while there is nothing to do... */
    STORE_SURPLUS_US = 4000,      /* ...but for no longer than this: commits wait meanwhile */
    STORE_ROOM_FILES = 1024,      /* where room is short, so many at a time... */
    STORE_ROOM_US = 500000,       /* ...for at most this long */
    STORE_SPARE_IDLE_US = 200000, /* files are made ahead, or removed, once no message came or was
                                   * over for this long... */
    STORE_SPARE_FILES = 64,       /* ...so many at a time... */
    STORE_SPARE_BYTES = 8192,     /* ...of this size... */
    STORE_SPARE_ROOM = 16,        /* ...while they take less than 1/this of the free space */
    STORE_JOURNAL_STAY_US = 5000000,   /* a message that is not over by then gets a file... */
    STORE_JOURNAL_BLOCK = 128 * 1024,  /* a block is written when it gets larger */
    STORE_JOURNAL_FILES = 64,          /* ...so many at a time... */
    STORE_JOURNAL_FILES_BUSY = 4,      /* ...or so many, while other work waits */
    STORE_JOURNAL_REST_US = 1000000,   /* after one could not get one, none is made */
    STORE_JOURNAL_FDS = 256,           /* of these, that stay open until they are synced */
    STORE_JOURNAL_CHANGES = 64 * 1024, /* it gets one sooner when so much of it changed */
    STORE_JOURNAL_TAIL_PRESSED = 64,   /* ...or by 1/this, when there is little room */
    STORE_SOURCES_MAX = 64,            /* messages at a time that are read from the ring */
    STORE_JOURNAL_RESERVE = 16,        /* 1/this of the ring is for records that free it */
    STORE_JOURNAL_TAIL_STEP = 8,       /* the superblock is written when the tail moved by 1/this */
    STORE_NURSERY_FILES = 32,          /* files are made somewhere else when so many... */
    STORE_NURSERY_SLOW_US = 60,        /* ...took longer than this each... */
    STORE_NURSERY_STAY_US = 100000,    /* ...but not sooner than this after the last move */
    STORE_BLOCK = 4096,
    STORE_SCAN_BATCH = 256,  /* found messages passed to the loop at a time */
    STORE_SCAN_BATCHES = 4,  /* that the loop has not taken yet */
    STORE_SCAN_ALERTS = 100, /* log lines about bad files in one scan */
    STORE_READERS = 4,       /* threads that read messages back */
    STORE_READ_CHUNK = 64,   /* messages that one of them takes at a time */
    STORE_RECORDS_MAX = 64 * 1024 * 1024,
    STORE_CORRUPT_NAMES = 1000 /* ID, ID.1, ... in corrupt/ */
};

#endif
