//! Limits that belong to a shell or to a policy, or whose test needs the inside of the core: where it is.

/// Limit, file, test.
pub const TESTS: &[(&str, &str, &str)] = &[
    ("VERIFICATIONS_PER_BATCH", "crates/core/src/signatures_tests.rs", "orders_of_several_keys_share_a_budget"),
    (
        "BLS_VERIFICATION_COST",
        "crates/core/src/signatures_tests.rs",
        "bls_signatures_and_proofs_cost_more_of_the_budget",
    ),
    ("KNOWN_KEYS_MAX", "crates/ed25519/src/lib.rs", "no_more_keys_are_known_than_the_limit"),
    ("MESSAGE_BYTES_MAX", "crates/rpc/tests/transport.rs", "messages_over_four_mebibytes_are_refused_both_ways"),
    (
        "CERTIFICATES_PER_BATCH",
        "crates/core/src/authority/tests/attacks.rs",
        "certificates_for_parts_of_a_batch_are_bounded",
    ),
    (
        "FOLLOWERS_MAX",
        "crates/core/src/authority/tests/attacks.rs",
        "what_waited_for_an_order_settles_in_steps_of_bounded_size",
    ),
    (
        "LANES_MAX",
        "crates/core/src/channel/manager/tests/vouchers.rs",
        "vouchers_that_the_log_would_refuse_are_refused",
    ),
    (
        "LANES_MAX",
        "crates/core/src/channel/manager/tests/funding.rs",
        "lookup_finds_the_open_channel_with_most_available_and_lanes_left",
    ),
    (
        "VIRTUALS_MAX",
        "crates/core/src/channel/virtuals/tests/limits.rs",
        "no_more_is_opened_or_closed_with_one_voucher_than_a_lane_has",
    ),
    ("VOUCHER_NONCE_MAX", "crates/core/src/channel/manager/tests/limits.rs", "nonces_end_below_2_to_the_63"),
    (
        "REDEMPTIONS_MAX",
        "crates/core/src/channel/manager/tests/limits.rs",
        "a_message_has_no_more_redemptions_than_its_limit",
    ),
    (
        "HUB_HOPS_MAX",
        "crates/core/src/channel/hub/tests/payments.rs",
        "what_is_no_lock_or_not_for_this_channel_is_refused_and_changes_nothing",
    ),
    ("HUB_LOCKS_MAX", "crates/core/src/channel/hub/tests/payments.rs", "locks_in_flight_are_capped"),
    ("HUB_MARGIN_MS", "crates/core/src/channel/hub/tests/payments.rs", "a_hub_refuses_what_its_terms_do_not_allow"),
    (
        "HUB_GRACE_MS",
        "crates/core/src/channel/hub/tests/trouble.rs",
        "a_known_secret_is_claimed_before_the_hub_may_be_away_for_its_grace",
    ),
    (
        "HUB_KEEP_MS",
        "crates/core/src/channel/hub/tests/forget.rs",
        "a_payment_and_its_invoice_are_listed_for_a_day_after_the_expiry",
    ),
    (
        "HUB_FORGET_MAX",
        "crates/core/src/channel/hub/tests/limits.rs",
        "no_more_is_forgotten_at_once_than_goes_into_a_record",
    ),
    ("HUB_REST_MS", "crates/core/src/channel/hub/tests/limits.rs", "a_lane_rests_for_ten_minutes"),
    (
        "HUB_LANES_SHOWN_MAX",
        "crates/core/src/channel/hub/tests/limits.rs",
        "a_greeting_shows_no_more_vouchers_than_are_compared",
    ),
    ("HUB_FRAME_BYTES_MAX", "crates/client/src/channel/serve.rs", "a_frame_over_the_limit_is_refused"),
    (
        "HUB_QUEUE_MAX",
        "crates/client/src/channel/link_tests.rs",
        "who_does_not_take_what_is_said_is_cut_off_and_a_newer_connection_takes_the_place_of_an_older_one",
    ),
    ("HUB_IN_HAND_MAX", "crates/client/src/channel/link_tests.rs", "no_more_is_heard_than_can_be_in_hand"),
    ("HUB_PROOF_MS", "crates/client/src/channel/link_tests.rs", "who_does_not_prove_in_time_who_it_is_is_cut_off"),
    (
        "VIRTUALS_PER_CHANNEL_MAX",
        "crates/core/src/channel/virtuals/tests/limits.rs",
        "a_channel_has_no_more_virtual_channels_than_its_wallet_takes",
    ),
    ("VIRTUAL_OPENS_BYTES_MAX", "crates/core/src/channel/virtuals/tests/attacks.rs", "openings_fit_into_frames"),
    (
        "WATCH_CLAIM_MS",
        "crates/core/src/channel/virtuals/tests/attacks.rs",
        "a_watchtower_claims_what_a_payee_that_is_off_was_paid",
    ),
    ("VIRTUAL_KEEP_MS", "crates/core/src/channel/virtuals/tests/limits.rs", "what_is_over_is_forgotten_after_a_day"),
    ("UNIT_BYTES_MAX", "crates/node/src/ordering/tests.rs", "four_order_all_items_alike"),
    (
        "SESSION_ROUNDS",
        "crates/core/src/ordered/tests/sessions.rs",
        "sessions_end_at_the_same_unit_everywhere_by_rounds",
    ),
    (
        "SESSION_BYTES_MAX",
        "crates/core/src/ordered/tests/sessions.rs",
        "sessions_end_at_the_same_unit_everywhere_by_bytes",
    ),
    ("RECOVERY_WAIT_MS", "crates/core/src/ordered/tests/recovery.rs", "a_locked_account_is_freed_and_pays_again"),
    ("REQUESTS_PER_CONNECTION", "crates/rpc/tests/transport.rs", "requests_over_the_limit_wait_for_their_turn"),
    (
        "CONNECTIONS_MAX",
        "crates/rpc/tests/transport.rs",
        "connections_over_the_limit_are_closed_and_their_place_comes_back",
    ),
    ("REFUSED_ORDER_MS", "crates/node/src/door.rs", "who_is_refused_waits_and_nobody_else"),
    ("REQUESTS_BYTES_MAX", "crates/rpc/tests/transport.rs", "bytes_in_hand_have_a_limit_for_a_host_and_for_all"),
];
