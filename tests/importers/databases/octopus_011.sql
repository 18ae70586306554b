-- A database of Octopus 0.11.0 with the tables and columns that its models declare (internal/model). Written by hand;
-- November 2026.
CREATE TABLE `users` (`id` integer PRIMARY KEY AUTOINCREMENT, `username` text, `password` text NOT NULL);
CREATE TABLE `channels` (`id` integer PRIMARY KEY AUTOINCREMENT, `name` text NOT NULL, `type` text,
  `enabled` numeric DEFAULT true, `base_url` text, `key` text, `model` text, `custom_model` text,
  `proxy` numeric DEFAULT false, `auto_sync` numeric DEFAULT false, `custom_header` text, `param_override` text,
  `channel_proxy` text, `match_regex` text);
CREATE TABLE `groups` (`id` integer PRIMARY KEY AUTOINCREMENT, `name` text NOT NULL, `mode` text NOT NULL DEFAULT 'manual',
  `active_item_id` integer NOT NULL DEFAULT 0, `relay_config` text);
CREATE TABLE `group_items` (`id` integer PRIMARY KEY AUTOINCREMENT, `group_id` integer NOT NULL,
  `channel_id` integer NOT NULL, `model_name` text NOT NULL, `priority` integer);
CREATE TABLE `llm_infos` (`name` text NOT NULL, `input` real, `output` real, `cache_read` real, `cache_write` real,
  PRIMARY KEY (`name`));
CREATE TABLE `api_keys` (`id` integer PRIMARY KEY AUTOINCREMENT, `name` text NOT NULL, `api_key` text NOT NULL,
  `enabled` numeric DEFAULT true, `expire_at` integer, `max_cost` real, `supported_models` text);
CREATE TABLE `settings` (`key` text, `value` text NOT NULL, PRIMARY KEY (`key`));
CREATE TABLE `stats_dailies` (`date` text, `input_token` bigint, `output_token` bigint, `input_cost` real,
  `output_cost` real, `wait_time` bigint, `request_success` bigint, `request_failed` bigint, PRIMARY KEY (`date`));
INSERT INTO users VALUES (1, 'admin', 'x');
INSERT INTO channels (id, name, type, enabled, base_url, key, proxy) VALUES
  (1, 'official', 'openai', 1, 'https://api.openai.com', 'sk-octopus-new-a', 0),
  (2, 'whole', 'openai_responses', 1, 'https://x.example.com/api/v9##', 'sk-octopus-new-b', 0);
INSERT INTO groups VALUES (1, 'gpt', 'manual', 2, '{}'), (2, 'safe', 'failover', 0, '{}'), (3, 'nothing', 'manual', 0, '{}');
INSERT INTO group_items VALUES (1, 1, 1, 'gpt-5-mini', 1), (2, 1, 2, 'gpt-5', 2), (3, 2, 1, 'gpt-5', 1), (4, 2, 2, 'gpt-5', 2),
  (5, 3, 1, 'gpt-5', 1);
INSERT INTO llm_infos VALUES ('gpt-5', 1.25, 10, 0, 0);
INSERT INTO api_keys VALUES (1, 'laptop', 'sk-octopus-ffffffffffffffffffffffffffffffffffffffffffffffff', 1, 0, 0, '');
INSERT INTO stats_dailies VALUES ('20261101', 1000, 200, 0.00125, 0.002, 5, 9, 1);
