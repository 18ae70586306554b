-- A database of Octopus 0.9.28 with the tables and columns that its models declare (internal/model). Written by hand,
-- since the program could not be built where this was made; November 2026. The password is octopus-correct-horse.
CREATE TABLE `users` (`id` integer PRIMARY KEY AUTOINCREMENT, `username` text, `password` text NOT NULL);
CREATE TABLE `channels` (`id` integer PRIMARY KEY AUTOINCREMENT, `name` text NOT NULL, `type` integer,
  `enabled` numeric DEFAULT true, `base_urls` text, `model` text, `custom_model` text, `proxy` numeric DEFAULT false,
  `auto_sync` numeric DEFAULT false, `auto_group` integer DEFAULT 0, `custom_header` text, `param_override` text,
  `channel_proxy` text, `match_regex` text);
CREATE TABLE `channel_keys` (`id` integer PRIMARY KEY AUTOINCREMENT, `channel_id` integer, `enabled` numeric DEFAULT true,
  `channel_key` text, `status_code` integer, `last_use_time_stamp` integer, `total_cost` real, `remark` text);
CREATE TABLE `groups` (`id` integer PRIMARY KEY AUTOINCREMENT, `name` text NOT NULL, `mode` integer NOT NULL,
  `match_regex` text, `first_token_time_out` integer, `session_keep_time` integer);
CREATE TABLE `group_items` (`id` integer PRIMARY KEY AUTOINCREMENT, `group_id` integer NOT NULL,
  `channel_id` integer NOT NULL, `model_name` text NOT NULL, `priority` integer, `weight` integer);
CREATE TABLE `llm_infos` (`name` text NOT NULL, `input` real, `output` real, `cache_read` real, `cache_write` real,
  PRIMARY KEY (`name`));
CREATE TABLE `api_keys` (`id` integer PRIMARY KEY AUTOINCREMENT, `name` text NOT NULL, `api_key` text NOT NULL,
  `enabled` numeric DEFAULT true, `expire_at` integer, `max_cost` real, `supported_models` text);
CREATE TABLE `settings` (`key` text, `value` text NOT NULL, PRIMARY KEY (`key`));
CREATE TABLE `stats_api_keys` (`api_key_id` integer PRIMARY KEY AUTOINCREMENT, `input_token` bigint, `output_token` bigint,
  `input_cost` real, `output_cost` real, `wait_time` bigint, `request_success` bigint, `request_failed` bigint);
CREATE TABLE `stats_dailies` (`date` text, `input_token` bigint, `output_token` bigint, `input_cost` real,
  `output_cost` real, `wait_time` bigint, `request_success` bigint, `request_failed` bigint, PRIMARY KEY (`date`));
CREATE TABLE `relay_logs` (`id` integer, `time` integer, `request_model_name` text, `request_api_key_name` text,
  `channel_id` integer, `channel_name` text, `actual_model_name` text, `input_tokens` integer, `output_tokens` integer,
  `ftut` integer, `use_time` integer, `cost` real, `request_content` text, `response_content` text, `error` text,
  `attempts` text, `total_attempts` integer, PRIMARY KEY (`id`));
INSERT INTO channels (id, name, type, enabled, base_urls, model, proxy, custom_header, param_override, channel_proxy) VALUES
  (1, 'official', 0, 1, '[{"url":"https://api.openai.com/v1","delay":80}]', 'gpt-5-mini', 0, '[{"header_key":"X-Title","header_value":"Acme"}]', '{"temperature":0.1,"model":"x"}', NULL),
  (2, 'mirror', 0, 1, '[{"url":"https://slow.example.com/v1","delay":900},{"url":"https://quick.example.com/v1","delay":20}]', 'gpt-5-mini', 0, NULL, NULL, NULL),
  (3, 'claude', 2, 1, '[{"url":"https://api.anthropic.com/v1","delay":0}]', 'claude-haiku', 0, '[]', '', NULL),
  (4, 'gemini', 3, 0, '[{"url":"https://generativelanguage.googleapis.com/v1beta","delay":0}]', 'gemini', 0, NULL, NULL, NULL),
  (5, 'ark', 4, 1, '[{"url":"https://ark.cn-beijing.volces.com/api/v3","delay":0}]', 'doubao', 0, NULL, NULL, NULL),
  (6, 'strange', 9, 1, '[]', '', 0, NULL, NULL, NULL);
INSERT INTO channel_keys (channel_id, enabled, channel_key, remark) VALUES
  (1, 1, 'sk-octopus-upstream-a1', 'first'), (1, 0, 'sk-octopus-upstream-a2', ''), (2, 1, 'sk-octopus-upstream-b', ''),
  (3, 1, 'sk-ant-octopus', ''), (4, 1, 'AIza-octopus-unit', ''), (5, 1, 'ark-octopus-unit', '');
INSERT INTO groups (id, name, mode, match_regex) VALUES
  (1, 'gpt', 3, ''), (2, 'balanced', 4, '^bal.*'), (3, 'haiku', 1, ''), (4, 'doubao', 2, ''), (5, 'empty', 1, '');
INSERT INTO group_items (group_id, channel_id, model_name, priority, weight) VALUES
  (1, 2, 'gpt-5-mini', 2, 1), (1, 1, 'GPT-5-mini', 1, 1), (2, 1, 'gpt-5-mini', 1, 3), (2, 2, 'gpt-5', 2, 1),
  (3, 3, 'claude-haiku', 1, 1), (4, 5, 'doubao-pro', 1, 1), (3, 3, 'claude-haiku-old', 2, 1);
INSERT INTO llm_infos VALUES ('gpt-5-mini', 0.25, 2, 0.025, 0), ('gpt-5', 1.25, 10, 0.125, 0), ('claude-haiku', 1, 5, 0.1, 1.25),
  ('doubao-pro', 0, 0, 0, 0);
INSERT INTO api_keys VALUES
  (1, 'laptop', 'sk-octopus-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 1, 0, 0, ''),
  (2, 'capped', 'sk-octopus-bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb', 1, 0, 10.5, 'gpt,haiku'),
  (3, 'spent', 'sk-octopus-cccccccccccccccccccccccccccccccccccccccccccccccc', 1, 0, 1, ''),
  (4, 'old', 'sk-octopus-dddddddddddddddddddddddddddddddddddddddddddddddd', 1, 1600000000, 0, ''),
  (5, 'off', 'sk-octopus-eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee', 0, 0, 0, '');
INSERT INTO settings VALUES ('proxy_url', ''), ('relay_log_keep_period', '7');
INSERT INTO stats_api_keys (api_key_id, input_cost, output_cost) VALUES (2, 0.25, 0.250000001), (3, 2, 3);
INSERT INTO relay_logs (id, time, request_model_name, request_api_key_name, channel_id, input_tokens, output_tokens, cost, error) VALUES
  (1, 1795170000, 'gpt', 'laptop', 1, 100, 10, 0.000045, ''), (2, 1795170001, 'gpt', 'laptop', 2, 0, 0, 0, 'upstream failed'),
  (3, 1795170002, 'haiku', 'gone', 3, 10, 10, 0.00006, '');
