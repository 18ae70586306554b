-- A database of GPT-Load 2 (its branch v2 of July 2026, schema 1) with the tables and columns that its models declare
-- (internal/storage/models). Written by hand; the test adds what is encrypted. November 2026.
CREATE TABLE `groups` (`id` integer PRIMARY KEY AUTOINCREMENT, `name` varchar(255) NOT NULL, `upstream_url` text NOT NULL,
  `protocols` json NOT NULL, `models` json NOT NULL, `convert_enabled` numeric NOT NULL DEFAULT false,
  `weight_manual` integer, `validation_model` varchar(255), `config` json, `enabled` numeric NOT NULL DEFAULT true,
  `created_at` datetime, `updated_at` datetime);
CREATE TABLE `upstream_keys` (`id` integer PRIMARY KEY AUTOINCREMENT, `group_id` integer NOT NULL,
  `key_value` text NOT NULL, `key_hash` varchar(128) NOT NULL, `status` varchar(32) NOT NULL DEFAULT 'active',
  `weight_manual` integer, `request_count` integer NOT NULL DEFAULT 0, `tokens_total` integer NOT NULL DEFAULT 0,
  `cost_total` real NOT NULL DEFAULT 0, `created_at` datetime, `updated_at` datetime);
CREATE TABLE `access_keys` (`id` integer PRIMARY KEY AUTOINCREMENT, `name` varchar(255) NOT NULL,
  `key_value` text NOT NULL, `key_hash` varchar(128) NOT NULL, `status` varchar(32) NOT NULL DEFAULT 'active',
  `filters` json, `rpm_limit` integer NOT NULL DEFAULT 0, `daily_cost_limit` real NOT NULL DEFAULT 0,
  `monthly_cost_limit` real NOT NULL DEFAULT 0, `created_at` datetime, `updated_at` datetime);
CREATE TABLE `model_prices` (`id` integer PRIMARY KEY AUTOINCREMENT, `pattern` varchar(255) NOT NULL,
  `input_price` real NOT NULL DEFAULT 0, `output_price` real NOT NULL DEFAULT 0, `cache_read_price` real NOT NULL DEFAULT 0,
  `cache_write_5m_price` real NOT NULL DEFAULT 0, `cache_write_1h_price` real NOT NULL DEFAULT 0,
  `source` varchar(32) NOT NULL, `created_at` datetime, `updated_at` datetime);
CREATE TABLE `request_logs` (`id` varchar(36) NOT NULL, `created_at` datetime NOT NULL, `access_key_id` integer NOT NULL,
  `protocol` varchar(32) NOT NULL, `client_model` varchar(255) NOT NULL, `upstream_model` varchar(255) NOT NULL,
  `status` varchar(32) NOT NULL, `status_code` integer NOT NULL, `duration_ms` integer NOT NULL,
  `input_tokens` integer NOT NULL DEFAULT 0, `output_tokens` integer NOT NULL DEFAULT 0,
  `cache_read_tokens` integer NOT NULL DEFAULT 0, `cost` real NOT NULL DEFAULT 0, PRIMARY KEY (`id`));
CREATE TABLE `system_settings` (`key` varchar(255) NOT NULL, `value` text NOT NULL, `updated_at` datetime, PRIMARY KEY (`key`));
CREATE TABLE `schema_info` (`version` integer, PRIMARY KEY (`version`));
INSERT INTO schema_info VALUES (1);
INSERT INTO groups (id, name, upstream_url, protocols, models, weight_manual, validation_model, config, enabled) VALUES
  (1, 'openai', 'https://api.openai.com', '["openai"]', '[{"id":"gpt-5-mini","alias":"fast"},{"id":"gpt-5","alias":""}]', 5, 'gpt-5-mini', '{"header_rules":{"set":{"X-Title":"Acme"},"remove":["X-Gone"]},"connect_timeout":10}', 1),
  (2, 'both', 'https://relay.example.com', '["openai","anthropic"]', '[{"id":"claude-haiku","alias":""}]', NULL, NULL, NULL, 0);
INSERT INTO model_prices (pattern, input_price, output_price, cache_read_price, source) VALUES
  ('gpt-5*', 1.25, 10, 0.125, 'builtin'), ('gpt-5-mini', 0.25, 2, 0, 'manual');
INSERT INTO request_logs (id, created_at, access_key_id, protocol, client_model, upstream_model, status, status_code,
  duration_ms, input_tokens, output_tokens, cache_read_tokens, cost) VALUES
  ('r1', '2026-11-20 10:00:00+00:00', 1, 'openai', 'fast', 'gpt-5-mini', 'success', 200, 5, 100, 20, 50, 0.000065),
  ('r2', '2026-11-20 10:00:01+00:00', 1, 'openai', 'fast', 'gpt-5-mini', 'error', 500, 5, 0, 0, 0, 0);
