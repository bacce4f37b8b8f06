/* libraries: qmgr_parts */
/*
 * What resolve, relay, bounce and quota say to qmgr (qmgr_world.h): RESOLVE_REPLY, RESULT, NOTICE,
 * what quota says of charges, pools and letters, and frames that are not for it. Whatever was
 * said: the message ends, every recipient was reported as sent unless an answer that qmgr took
 * decided it, a reply that was refused changes nothing, and the counters are right after each turn
 * (consistency.c).
 */
#include "qmgr_world.h"

enum { PIECES_MAX = 16 };

enum own_kind {
    RAW_QUOTA = OWN_KINDS,
    OF_QUOTA, /* the first byte names the message, the others are its body */
    CHARGED,  /* of the batch that the first byte names, from the last one backwards */
    LETTER,   /* a new one, or under the message's ID */
    ABOUT_IT, /* a question about the message, or its release */
    KINDS
};

enum { OF_ACCOUNT = 16, HELD_FOR_RATE = 32 }; /* of world.options */

static void of_quota(struct slice bytes)
{
    static const uint16_t numbers[] = {IPC_NUMBER_ipc_charges_ready, IPC_NUMBER_ipc_charged,
                                       IPC_NUMBER_ipc_charges_query, IPC_NUMBER_ipc_charges_release,
                                       IPC_NUMBER_ipc_account_pool,  IPC_NUMBER_ipc_account_notice};
    struct buf frame = BUF_INIT(IPC_FRAME_MAX);
    if (bytes.len == 0)
        return;
    uint16_t number = numbers[(uint8_t)bytes.ptr[0] % (sizeof numbers / sizeof *numbers)];
    uint16_t flags = 0;
    uint32_t len = (uint32_t)bytes.len - 1;
    buf_add(&frame, &len, sizeof len);
    buf_add(&frame, &number, sizeof number);
    buf_add(&frame, &flags, sizeof flags);
    buf_adds(&frame, slice_from(bytes, 1));
    send_frame(&world.quota, &frame);
    turns();
}

/* Flags (4 bytes), then the recipient up to a line end, then the content. */
static void letter(struct slice bytes)
{
    struct buf frame = BUF_INIT(IPC_FRAME_MAX);
    struct id id = id_new();
    uint32_t flags = 0;
    for (int i = 0; i < 4 && bytes.len; i++, bytes = slice_from(bytes, 1))
        flags = flags << 8 | (uint8_t)bytes.ptr[0];
    struct slice recipient = slice_cut(&bytes, '\n');
    ipc_account_notice_encode(&frame, &(struct ipc_account_notice){
                                          .tag = 1,
                                          .id = flags >> 31 ? slice_str(world.id) : id_slice(&id),
                                          .recipient = recipient,
                                          .flags = flags,
                                          .content = bytes});
    send_frame(&world.quota, &frame);
    turns();
}

static void about_it(bool question)
{
    struct buf frame = BUF_INIT(IPC_FRAME_MAX), ids = BUF_INIT(1024);
    ipc_charge_id_add(&ids, &(struct ipc_charge_id){.id = slice_str(world.id)});
    if (question)
        ipc_charges_query_encode(&frame,
                                 &(struct ipc_charges_query){.tag = 7, .ids = buf_slice(&ids)});
    else
        ipc_charges_release_encode(&frame,
                                   &(struct ipc_charges_release){.id = slice_str(world.id)});
    buf_free(&ids);
    send_frame(&world.quota, &frame);
    turns();
}

static void own_piece(unsigned kind, struct slice bytes)
{
    uint32_t n = bytes.len ? (uint8_t)bytes.ptr[0] : 0;
    if (kind == RAW_QUOTA)
        send_raw(&world.quota, bytes);
    else if (kind == OF_QUOTA)
        of_quota(bytes);
    else if (kind == LETTER)
        letter(bytes);
    else if (kind == ABOUT_IT)
        about_it(n & 1);
    else
        charged(world.batch - n + 1);
    turns();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!world.base) {
        world_start(true);
        world_attach();
    }
    if (size < 1)
        return 0;
    world_begin(data[0]);
    bool of_account = world.options & OF_ACCOUNT;
    commit((struct ipc_commit){
        .account = of_account ? SLICE("acme/web") : SLICE(""),
        .flags = of_account && world.options & HELD_FOR_RATE ? MESSAGE_HOLD_RATE : 0});
    play(slice_make(data + 1, size - 1), PIECES_MAX, KINDS, own_piece);
    quota_ready();   /* the input may have said that it takes no batch */
    about_it(false); /* its turn has come */
    end_everything();
    return 0;
}
