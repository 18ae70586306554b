BEGIN TRANSACTION;
CREATE TABLE conversations (
                    id TEXT PRIMARY KEY,
                    metadata_json TEXT NOT NULL,
                    seed_items_json TEXT,
                    latest_response_id TEXT,
                    created_at INTEGER NOT NULL,
                    updated_at INTEGER NOT NULL
                );
INSERT INTO "conversations" VALUES('conv_d89034d903ac40c390eb0b69dbc08015','{"topic": "greeting"}','[{"type": "message", "role": "user", "content": "Answer in one sentence."}]','resp_1',1796037825,1796037825);
INSERT INTO "conversations" VALUES('conv_68c94b917d0549cfbe76905ed8fe9cdc','{}','[]',NULL,1796037825,1796037825);
CREATE TABLE files (
                    id TEXT PRIMARY KEY,
                    filename TEXT NOT NULL,
                    purpose TEXT NOT NULL,
                    content_type TEXT NOT NULL,
                    bytes INTEGER NOT NULL,
                    sha256 TEXT NOT NULL,
                    created_at INTEGER NOT NULL,
                    storage_path TEXT NOT NULL
                );
INSERT INTO "files" VALUES('file_f698704855c14333b8464c9a9b3a4cf4','hello.txt','user_data','text/plain',20,'df4bdd62a7f064ae7b1032081fd226e99d70436663e970870e6bb37e8295e8a3',1796037825,'{home}/.airelays/uploads/file_f698704855c14333b8464c9a9b3a4cf4');
INSERT INTO "files" VALUES('file_ecabf300285c4885bfd44bfba0b34628','nächste Woche.csv','user_data','text/csv',19,'482327c63df05cdb6191f1a8aa60b602623a610d684ab7a26f7fde5b24adaf43',1796037825,'{home}/.airelays/uploads/file_ecabf300285c4885bfd44bfba0b34628');
COMMIT;
