-- A database of GPT-Load 1.4.9 with the tables and columns that its models declare (internal/models/types.go). Written by
-- hand, since the program could not be built where this was made; November 2026. Keys are in clear: no ENCRYPTION_KEY.
CREATE TABLE `system_settings` (`id` integer PRIMARY KEY AUTOINCREMENT, `setting_key` varchar(255) NOT NULL,
  `setting_value` text NOT NULL, `description` varchar(512), `created_at` datetime, `updated_at` datetime);
CREATE TABLE `groups` (`id` integer PRIMARY KEY AUTOINCREMENT, `name` varchar(255) NOT NULL, `display_name` varchar(255),
  `proxy_keys` text, `description` varchar(512), `group_type` varchar(50) DEFAULT 'standard', `upstreams` JSON NOT NULL,
  `validation_endpoint` varchar(255), `channel_type` varchar(50) NOT NULL, `sort` integer DEFAULT 0,
  `test_model` varchar(255) NOT NULL, `param_overrides` JSON, `config` JSON, `header_rules` JSON,
  `model_redirect_rules` JSON, `model_redirect_strict` numeric DEFAULT false, `last_validated_at` datetime,
  `created_at` datetime, `updated_at` datetime);
CREATE TABLE `group_sub_groups` (`id` integer PRIMARY KEY AUTOINCREMENT, `group_id` integer NOT NULL,
  `sub_group_id` integer NOT NULL, `weight` integer DEFAULT 0, `created_at` datetime, `updated_at` datetime);
CREATE TABLE `api_keys` (`id` integer PRIMARY KEY AUTOINCREMENT, `key_value` text NOT NULL, `key_hash` varchar(128),
  `group_id` integer NOT NULL, `status` varchar(50) NOT NULL DEFAULT 'active', `notes` varchar(255) DEFAULT '',
  `request_count` integer NOT NULL DEFAULT 0, `failure_count` integer NOT NULL DEFAULT 0, `last_used_at` datetime,
  `created_at` datetime, `updated_at` datetime);
CREATE TABLE `request_logs` (`id` varchar(36), `timestamp` datetime NOT NULL, `group_id` integer NOT NULL,
  `group_name` varchar(255), `parent_group_id` integer, `parent_group_name` varchar(255), `key_value` text,
  `key_hash` varchar(128), `model` varchar(255), `is_success` numeric NOT NULL, `source_ip` varchar(64),
  `status_code` integer NOT NULL, `request_path` varchar(500), `duration` integer NOT NULL, `error_message` text,
  `user_agent` varchar(512), `request_type` varchar(20) NOT NULL DEFAULT 'final', `upstream_addr` varchar(500),
  `is_stream` numeric NOT NULL, `request_body` text, PRIMARY KEY (`id`));
CREATE TABLE `group_hourly_stats` (`id` integer PRIMARY KEY AUTOINCREMENT, `time` datetime NOT NULL,
  `group_id` integer NOT NULL, `success_count` integer NOT NULL DEFAULT 0, `failure_count` integer NOT NULL DEFAULT 0,
  `created_at` datetime, `updated_at` datetime);
INSERT INTO system_settings (setting_key, setting_value) VALUES
  ('app_url', 'http://localhost:3001'), ('proxy_keys', 'sk-everywhere-0123456789,short'), ('max_retries', '3');
INSERT INTO groups (id, name, proxy_keys, group_type, upstreams, validation_endpoint, channel_type, test_model,
  param_overrides, config, header_rules, model_redirect_rules, model_redirect_strict) VALUES
  (1, 'openai', 'sk-openai-only-0123456789', 'standard',
   '[{"url":"https://api.openai.com","weight":1}]', '', 'openai', 'gpt-5-mini', '{"temperature":0.2,"user.name":"x"}',
   '{"max_retries":5,"proxy_url":""}',
   '[{"key":"X-Title","value":"Acme","action":"set"},{"key":"X-Client","value":"${CLIENT_IP}","action":"set"},{"key":"X-Gone","value":"","action":"remove"}]',
   '{"fast":"gpt-5-nano"}', 0),
  (2, 'mirror', 'sk-openai-only-0123456789,sk-mirror-only-0123456789', 'standard',
   '[{"url":"https://one.example.com/","weight":3},{"url":"https://two.example.com","weight":1},{"url":"https://off.example.com","weight":0}]',
   '/v4/chat/completions', 'openai', 'glm-5', NULL, NULL, NULL, '{"glm":"glm-5"}', 1),
  (3, 'claude', '', 'standard', '[{"url":"https://api.anthropic.com","weight":1}]', '', 'anthropic', 'claude-haiku',
   NULL, NULL, NULL, NULL, 0),
  (4, 'gemini', '', 'standard', '[{"url":"https://generativelanguage.googleapis.com","weight":1}]', '', 'gemini',
   'gemini-2.5-flash', NULL, NULL, NULL, NULL, 0),
  (5, 'all-chat', 'sk-aggregate-0123456789', 'aggregate', '[]', '', 'openai', '-', NULL, NULL, NULL, NULL, 0),
  (6, 'unknown', '', 'standard', '[{"url":"https://x.example.com","weight":1}]', '', 'cohere', 'x', NULL, NULL, NULL, NULL, 0);
INSERT INTO group_sub_groups (group_id, sub_group_id, weight) VALUES (5, 1, 10), (5, 2, 20), (5, 3, 0);
INSERT INTO api_keys (key_value, group_id, status, notes) VALUES
  ('sk-upstream-a-0123456789', 1, 'active', 'main'), ('sk-upstream-b-0123456789', 1, 'invalid', ''),
  ('sk-mirror-a-0123456789', 2, 'active', ''), ('sk-ant-a-0123456789', 3, 'active', ''),
  ('AIza-a-0123456789', 4, 'active', ''), ('sk-orphan-0123456789', 99, 'active', '');
INSERT INTO request_logs (id, timestamp, group_id, model, is_success, status_code, duration, request_type, is_stream) VALUES
  ('a1', '2026-11-20 10:00:00+00:00', 1, 'gpt-5', 1, 200, 10, 'final', 0),
  ('a2', '2026-11-20 10:00:01+00:00', 1, 'gpt-5', 0, 500, 10, 'retry', 0),
  ('a3', '2026-11-20 10:00:02+00:00', 1, 'gpt-nonsense', 0, 404, 10, 'final', 0),
  ('a4', '2026-11-21 10:00:03+00:00', 3, 'claude-haiku', 1, 200, 10, 'final', 1);
